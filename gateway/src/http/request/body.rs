//! Reads a request's body, bounded in size and in time.

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::http::error::HttpError;
use crate::http::held::Held;
use crate::http::limits::{BODY_WINDOW, BODY_WINDOW_BYTES, COPIED};
use crate::http::request::coding::Coding;
use crate::http::request::run_off_thread::run_off_thread;

/// The body of `request`, decompressed, at most `limit` bytes, which are counted in `held`. It must be there at `until`.
///
/// # Errors
/// [`HttpError`] if the body is too large, compressed in an unknown way, or does not arrive.
pub(crate) async fn read(request: Request, limit: usize, held: &Held, until: Instant) -> Result<Bytes, HttpError> {
    let coding = Coding::of(request.headers())?;
    let body = as_sent(request, limit, held, until).await?;
    match coding {
        None => Ok(body),
        // Boxed, so that plain bodies reserve no space for this.
        Some(coding) => Box::pin(decoded(coding, body, limit, held.clone())).await,
    }
}

async fn decoded(coding: Coding, body: Bytes, limit: usize, held: Held) -> Result<Bytes, HttpError> {
    // A small body may hold much.
    run_off_thread(usize::MAX, move || {
        let decoded = coding.decode(&body, limit, &mut |bytes| held.grow(bytes))?;
        held.shrink(body.len());
        Ok(decoded)
    })
    .await?
}

/// The body of `request` as its bytes came, at most `limit`.
///
/// A body whose announced length is too large is refused unread, so that a client that waits for `100 Continue` sends
/// nothing. Any other is refused at the first byte beyond the limit.
async fn as_sent(request: Request, limit: usize, held: &Held, until: Instant) -> Result<Bytes, HttpError> {
    let announced = check(request.headers(), limit)?;
    let mut body = request.into_body();
    let mut pace = Pace::new(Instant::now(), until);
    let Some(first) = frame(&mut body, &mut pace).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(HttpError::BodyTooLarge(limit));
    }
    held.grow(first.len())?;
    let mut whole: Option<BytesMut> = None;
    while let Some(more) = frame(&mut body, &mut pace).await? {
        let whole = whole.get_or_insert_with(|| {
            let mut whole = BytesMut::with_capacity(announced.unwrap_or(0).max(first.len() + more.len()));
            whole.extend_from_slice(&first);
            whole
        });
        if whole.len() + more.len() > limit {
            return Err(HttpError::BodyTooLarge(limit));
        }
        held.grow(more.len())?;
        whole.extend_from_slice(&more);
    }
    Ok(match whole {
        Some(whole) => whole.freeze(),
        // The body lives as long as its stream. A slice would keep the connection's whole buffer alive.
        None if first.len() <= COPIED => Bytes::copy_from_slice(&first),
        None => first,
    })
}

/// The announced length, if any.
fn check(headers: &HeaderMap, limit: usize) -> Result<Option<usize>, HttpError> {
    let Some(length) = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()) else {
        return Ok(None);
    };
    // The HTTP library has checked that it is a number; one that does not fit is too large.
    match length.parse::<usize>() {
        Ok(length) if length <= limit => Ok(Some(length)),
        _ => Err(HttpError::BodyTooLarge(limit)),
    }
}

/// How fast a client sends its body.
struct Pace {
    until: Instant,
    window_ends: Instant,
    bytes: usize,
}

impl Pace {
    fn new(now: Instant, until: Instant) -> Self {
        Self {
            until,
            window_ends: now + BODY_WINDOW,
            bytes: 0,
        }
    }

    /// When a client that sends no more is too slow.
    fn patience(&self) -> Instant {
        self.until.min(self.window_ends)
    }

    /// `bytes` came at `now`; false if the client is too slow.
    fn note(&mut self, bytes: usize, now: Instant) -> bool {
        self.bytes += bytes;
        if now >= self.until || (now >= self.window_ends && self.bytes < BODY_WINDOW_BYTES) {
            return false;
        }
        if self.bytes >= BODY_WINDOW_BYTES {
            *self = Self::new(now, self.until);
        }
        true
    }
}

async fn frame(body: &mut Body, pace: &mut Pace) -> Result<Option<Bytes>, HttpError> {
    loop {
        match tokio::time::timeout_at(pace.patience(), body.frame()).await {
            Err(_) => return Err(HttpError::BodyTimeout),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(HttpError::BodyBroken(error.to_string())),
            // Trailers are ignored.
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    if !pace.note(data.len(), Instant::now()) {
                        return Err(HttpError::BodyTimeout);
                    }
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::http::held::Bodies;
    use crate::metrics::Metrics;

    async fn read(request: Request, limit: usize) -> Result<Bytes, HttpError> {
        let held = Bodies::new(1 << 20, Metrics::default()).begin();
        super::read(request, limit, &held, Instant::now() + BODY_WINDOW * 10).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_drips_is_told_and_so_is_one_past_its_deadline() {
        // A byte a second never pauses for long.
        let drips = stream::unfold((), |()| async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>("x"), ()))
        });
        let start = Instant::now();
        let slow = read(Request::new(Body::from_stream(drips)), 1 << 20).await;
        assert_eq!(slow, Err(HttpError::BodyTimeout));
        assert!(start.elapsed() <= BODY_WINDOW * 2);
        // Fast enough, and endless.
        let flows = stream::unfold((), |()| async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>("x".repeat(1100)), ()))
        });
        let start = Instant::now();
        let late = read(Request::new(Body::from_stream(flows)), 1 << 20).await;
        assert_eq!(late, Err(HttpError::BodyTimeout));
        assert!(start.elapsed() >= BODY_WINDOW * 9);
    }

    fn pieces(pieces: &[&'static str]) -> Request {
        let pieces: Vec<Result<&str, std::io::Error>> = pieces.iter().map(|piece| Ok(*piece)).collect();
        Request::new(Body::from_stream(stream::iter(pieces)))
    }

    #[tokio::test]
    async fn bodies_up_to_the_limit_are_read_whole() {
        assert_eq!(read(pieces(&[]), 4).await.unwrap(), "");
        assert_eq!(read(pieces(&["abcd"]), 4).await.unwrap(), "abcd");
        assert_eq!(read(pieces(&["a", "", "bc", "d"]), 4).await.unwrap(), "abcd");
    }

    #[tokio::test]
    async fn an_endless_body_is_refused_at_the_first_byte_too_many() {
        let endless = stream::iter(std::iter::repeat_with(|| Ok::<_, std::io::Error>("xxx")));
        let read = read(Request::new(Body::from_stream(endless)), 1000).await;
        assert_eq!(read, Err(HttpError::BodyTooLarge(1000)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_size_is_refused_unread() {
        for length in ["5", "99999999999999999999", "18446744073709551615"] {
            let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
            let request = Request::builder().header(CONTENT_LENGTH, length).body(body).unwrap();
            let read = tokio::time::timeout(BODY_WINDOW / 2, read(request, 4));
            assert_eq!(read.await.unwrap(), Err(HttpError::BodyTooLarge(4)), "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_is_told() {
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(Request::new(body), 4).await, Err(HttpError::BodyTimeout));
    }

    #[tokio::test]
    async fn a_broken_body_is_an_error() {
        let broken = stream::iter([Ok("{"), Err(std::io::Error::other("reset"))]);
        let read = read(Request::new(Body::from_stream(broken)), 10).await;
        assert!(matches!(read, Err(HttpError::BodyBroken(_))));
    }

    #[tokio::test]
    async fn a_compressed_body_is_decoded_and_an_unknown_coding_refused_by_name() {
        let read = async |coding: &str, body: &'static [u8], limit| {
            let request = Request::builder().header("content-encoding", coding);
            read(request.body(Body::from(body)).unwrap(), limit).await
        };
        // `{}` in a stored block of zlib.
        let zlib = b"\x78\x01\x01\x02\x00\xfd\xff{}\x01\x75\x00\xf9";
        assert_eq!(read("deflate", zlib, 100).await.unwrap(), "{}");
        assert_eq!(read("Identity", b"{}", 100).await.unwrap(), "{}");
        assert_eq!(
            read("br, gzip", b"{}", 100).await,
            Err(HttpError::ContentEncoding("br, gzip".to_owned()))
        );
    }
}
