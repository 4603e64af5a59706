//! Downloads one large file over HTTP: resumed after a break, checked at the end, in place whole.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::{http, limits};

/// What is to be downloaded.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// From where.
    pub(crate) url: Url,
    /// Sent as a bearer token to that host (not to those it redirects to).
    pub(crate) token: Option<String>,
    /// Its length, bytes, where known.
    pub(crate) size: Option<u64>,
    /// Its SHA-256 in lower-case hex, where known.
    pub(crate) sha256: Option<String>,
}

/// Why a download failed for good. What came is kept for the next start, unless it is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// No connection, again and again.
    #[error("the download of {url} does not go on ({reason}); start again to resume it")]
    Stuck { url: Url, reason: String },
    /// The server refuses.
    #[error("{url} answers HTTP {status}{hint}")]
    Status { url: Url, status: u16, hint: &'static str },
    /// The file is not the one it should be.
    #[error(
        "the file downloaded from {url} is damaged (its SHA-256 is not {expected}); start again to download it anew"
    )]
    Damaged { url: Url, expected: String },
    /// The disk.
    #[error("cannot write {path}: {source}", path = path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// How one attempt ended.
enum Attempt {
    /// All of the file is here.
    Complete,
    /// Worth another attempt.
    Broken { reason: String, wait: Option<Duration> },
}

/// Downloads `wanted` to `place`, going on from what an earlier call left in `place.part`.
/// `report` is told bytes done and the total.
///
/// # Errors
/// [`DownloadError`].
pub(crate) async fn download(
    wanted: &Wanted,
    place: &Path,
    mut report: impl FnMut(u64, u64),
) -> Result<(), DownloadError> {
    let client = http::client(&wanted.url, limits::DOWNLOAD_STALL).map_err(|error| DownloadError::Stuck {
        url: wanted.url.clone(),
        reason: http::cause(&error),
    })?;
    let mut part = Part::open(place).await?;
    let mut fruitless = 0;
    let mut pause = limits::DOWNLOAD_RETRY_FIRST;
    loop {
        let before = part.length;
        let (reason, wait) = match attempt(&client, wanted, &mut part, &mut report).await? {
            Attempt::Complete => break,
            Attempt::Broken { reason, wait } => (reason, wait),
        };
        if part.length > before {
            (fruitless, pause) = (0, limits::DOWNLOAD_RETRY_FIRST);
        } else {
            fruitless += 1;
        }
        if fruitless == limits::DOWNLOAD_FRUITLESS_ATTEMPTS {
            return Err(DownloadError::Stuck {
                url: wanted.url.clone(),
                reason,
            });
        }
        tracing::debug!(reason, have = part.length, "resuming the download");
        tokio::time::sleep(wait.unwrap_or(pause).min(limits::DOWNLOAD_RETRY_LONGEST)).await;
        pause = (pause * 2).min(limits::DOWNLOAD_RETRY_LONGEST);
    }
    part.finish(wanted, place).await
}

async fn attempt(
    client: &Client,
    wanted: &Wanted,
    part: &mut Part,
    report: &mut impl FnMut(u64, u64),
) -> Result<Attempt, DownloadError> {
    if wanted.size.is_some_and(|size| part.length == size) {
        return Ok(Attempt::Complete);
    }
    // Without a validator or a hash nothing proves that the rest belongs to what is here.
    let resumable = part.validator.is_some() || wanted.sha256.is_some();
    if part.length > 0 && (!resumable || wanted.size.is_some_and(|size| part.length > size)) {
        part.restart().await?;
    }
    let mut request = client.get(wanted.url.clone()).header(ACCEPT_ENCODING, "identity");
    if let Some(token) = &wanted.token {
        request = request.bearer_auth(token);
    }
    if part.length > 0 {
        request = request.header(RANGE, format!("bytes={}-", part.length));
        if let Some(validator) = &part.validator {
            request = request.header(IF_RANGE, validator);
        }
    }
    match request.send().await {
        Ok(response) => receive(response, wanted, part, report).await,
        Err(error) => Ok(Attempt::Broken {
            reason: http::cause(&error),
            wait: None,
        }),
    }
}

/// Appends the body of `response` to the part, or starts it anew where the server does so.
async fn receive(
    response: Response,
    wanted: &Wanted,
    part: &mut Part,
    report: &mut impl FnMut(u64, u64),
) -> Result<Attempt, DownloadError> {
    let status = response.status();
    let total = match status {
        StatusCode::PARTIAL_CONTENT => match content_range(response.headers()) {
            Some((start, total)) if start == part.length => total,
            _ => {
                part.restart().await?;
                let reason = "the server sent another part than was asked for".to_owned();
                return Ok(Attempt::Broken { reason, wait: None });
            }
        },
        StatusCode::OK => {
            part.restart().await?;
            response.content_length()
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            part.restart().await?;
            let reason = "the file has changed at its source".to_owned();
            return Ok(Attempt::Broken { reason, wait: None });
        }
        _ if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) => {
            let wait = retry_after(response.headers());
            return Ok(Attempt::Broken {
                reason: format!("HTTP {status}"),
                wait,
            });
        }
        _ => {
            let hint = hint(status);
            return Err(DownloadError::Status {
                url: wanted.url.clone(),
                status: status.as_u16(),
                hint,
            });
        }
    };
    part.remember(validator(response.headers())).await?;
    let total = wanted.size.or(total);
    let mut body = response.bytes_stream();
    loop {
        match body.next().await {
            Some(Ok(bytes)) => part.append(&bytes).await?,
            Some(Err(error)) => {
                return Ok(Attempt::Broken {
                    reason: http::cause(&error),
                    wait: None,
                });
            }
            None => break,
        }
        report(part.length, total.unwrap_or(part.length));
    }
    match total {
        Some(total) if part.length < total => Ok(Attempt::Broken {
            reason: "the connection ended early".to_owned(),
            wait: None,
        }),
        _ => Ok(Attempt::Complete),
    }
}

/// Start and total of `bytes 100-199/200`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}

/// What proves that two answers are parts of the same file: a strong tag, or else the date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let strong = text(ETAG).filter(|tag| !tag.starts_with("W/"));
    strong.or_else(|| text(LAST_MODIFIED)).map(str::to_owned)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
        .map(Duration::from_secs)
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ": it is private or gated; accept its terms and set HF_TOKEN to a token that may read it"
        }
        StatusCode::NOT_FOUND => ": there is no such file; check its name",
        _ => "",
    }
}

/// The file as far as it is here, `NAME.part`, and what proves its origin, `NAME.part.tag`.
struct Part {
    path: PathBuf,
    tag: PathBuf,
    file: File,
    length: u64,
    validator: Option<String>,
}

impl Part {
    async fn open(place: &Path) -> Result<Self, DownloadError> {
        let path = suffixed(place, ".part");
        let tag = suffixed(place, ".part.tag");
        if let Some(parent) = place.parent() {
            tokio::fs::create_dir_all(parent).await.map_err(disk(parent))?;
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .await
            .map_err(disk(&path))?;
        let length = file.metadata().await.map_err(disk(&path))?.len();
        let validator = tokio::fs::read_to_string(&tag).await.ok();
        Ok(Self {
            path,
            tag,
            file,
            length,
            validator,
        })
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.file.write_all(bytes).await.map_err(disk(&self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), DownloadError> {
        self.file.flush().await.map_err(disk(&self.path))?;
        self.file.set_len(0).await.map_err(disk(&self.path))?;
        self.length = 0;
        self.remember(None).await
    }

    async fn remember(&mut self, validator: Option<String>) -> Result<(), DownloadError> {
        if validator == self.validator {
            return Ok(());
        }
        match &validator {
            Some(text) => tokio::fs::write(&self.tag, text).await.map_err(disk(&self.tag))?,
            None => remove(&self.tag).await?,
        }
        self.validator = validator;
        Ok(())
    }

    /// Checks the whole file and moves it into place.
    async fn finish(mut self, wanted: &Wanted, place: &Path) -> Result<(), DownloadError> {
        self.file.flush().await.map_err(disk(&self.path))?;
        self.file.sync_all().await.map_err(disk(&self.path))?;
        if let Some(expected) = &wanted.sha256 {
            let path = self.path.clone();
            let found = tokio::task::spawn_blocking(move || sha256_of(&path))
                .await
                .map_err(io::Error::other)
                .and_then(|read| read)
                .map_err(disk(&self.path))?;
            if found != *expected {
                remove(&self.path).await?;
                remove(&self.tag).await?;
                return Err(DownloadError::Damaged {
                    url: wanted.url.clone(),
                    expected: expected.clone(),
                });
            }
        }
        tokio::fs::rename(&self.path, place).await.map_err(disk(place))?;
        remove(&self.tag).await
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn remove(path: &Path) -> Result<(), DownloadError> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(path)(error)),
        _ => Ok(()),
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> DownloadError {
    let path = path.to_owned();
    move |source| DownloadError::Disk { path, source }
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut block = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            break;
        }
        hasher.update(block.get(..read).unwrap_or_default());
    }
    let mut hex = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
