//! The headers of a request to a model: its time limit, trace, priority and tenant.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokenbus_placement::session_hash;
use tokenbus_protocol::TraceContext;
use tokenbus_telemetry::is_traceparent;

use crate::auth::key_table::Key;
use crate::http::error::HttpError;
use crate::http::limits::{MAX_PRIORITY, MAX_TENANT, MAX_TRACESTATE};

/// In an answer: what the client asked for and does not get.
pub(crate) const IGNORED: HeaderName = HeaderName::from_static("x-tokenbus-ignored");

/// In an answer: no engine could count the tokens that it tells.
pub(crate) const ESTIMATED: HeaderName = HeaderName::from_static("x-tokenbus-estimated");

/// In an answer: the worker that gives it. Only where the request asks for it.
pub(crate) const WORKER: HeaderName = HeaderName::from_static("x-tokenbus-worker");

/// In an answer: why that worker was chosen.
pub(crate) const DECISION: HeaderName = HeaderName::from_static("x-tokenbus-decision");

/// In a request: the answer is to say where it comes from.
const EXPLAIN: &str = "x-tokenbus-explain";

/// The headers in which clients name their session.
const SESSIONS: [&str; 3] = ["x-claude-code-session-id", "session-id", "x-session-id"];

const TIMEOUT: &str = "x-request-timeout";
const PRIORITY: &str = "x-tokenbus-priority";
const TENANT: &str = "x-tokenbus-tenant";

/// The values of a request's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallHeaders {
    /// Time limit: of an answer in one piece, and of each silence of a stream.
    pub(crate) timeout: Duration,
    /// 0 if not given; clamped to plus and minus [`MAX_PRIORITY`].
    pub(crate) priority: i32,
    asked_priority: Option<i32>,
    /// The tenant that the request counts for.
    pub(crate) tenant: Option<String>,
    /// A hash of the client's session, if a header names one.
    pub(crate) session: Option<u64>,
    /// The answer is to say which worker gives it, and why.
    pub(crate) explain: bool,
}

impl CallHeaders {
    /// Reads `headers`. Without a time limit in them, `timeout` holds; a client may ask for at most `longest`.
    ///
    /// # Errors
    /// [`HttpError::Header`] names the header with an illegal value.
    pub(crate) fn read(headers: &HeaderMap, timeout: Duration, longest: Duration) -> Result<Self, HttpError> {
        let asked_priority = priority(headers)?;
        Ok(Self {
            asked_priority,
            timeout: asked_timeout(headers)?.map_or(timeout, |asked| asked.min(longest.max(timeout))),
            priority: asked_priority.unwrap_or(0),
            tenant: tenant(headers)?,
            session: SESSIONS
                .iter()
                .find_map(|name| headers.get(*name))
                .map(|name| session_hash(name.as_bytes())),
            explain: headers.contains_key(EXPLAIN),
        })
    }
}

impl CallHeaders {
    /// Limits the values to what `key` allows: the tenant is the key's, the priority at most the key's. A client without
    /// a key has at most the priority `keyless`.
    pub(crate) fn bound(&mut self, key: Option<&Key>, keyless: i32) {
        let (most, usual) = key.map_or((keyless, keyless.min(0)), |key| (key.priority, key.priority));
        self.priority = self.asked_priority.unwrap_or(usual).min(most);
        if let Some(key) = key {
            self.tenant = Some(key.tenant.clone());
        }
    }
}

fn wrong(name: &'static str, reason: impl Into<String>) -> HttpError {
    HttpError::Header {
        name,
        reason: reason.into(),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, HttpError> {
    let value = headers.get(name).map(|value| value.to_str().map(str::trim));
    value.transpose().map_err(|_| wrong(name, "it is not plain ASCII"))
}

fn asked_timeout(headers: &HeaderMap) -> Result<Option<Duration>, HttpError> {
    let Some(text) = text(headers, TIMEOUT)? else {
        return Ok(None);
    };
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    match seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(timeout)) => Ok(Some(timeout)),
        // A number too large for a duration is above the limit.
        Some(Err(_)) if seconds.is_some_and(f64::is_finite) => Ok(Some(Duration::MAX)),
        _ => Err(wrong(TIMEOUT, format!("{text:?} is no number of seconds above 0"))),
    }
}

fn priority(headers: &HeaderMap) -> Result<Option<i32>, HttpError> {
    let Some(text) = text(headers, PRIORITY)? else {
        return Ok(None);
    };
    let number = text.parse::<i32>();
    let number = number.map_err(|_| wrong(PRIORITY, format!("{text:?} is no whole number")))?;
    Ok(Some(number.clamp(-MAX_PRIORITY, MAX_PRIORITY)))
}

fn tenant(headers: &HeaderMap) -> Result<Option<String>, HttpError> {
    match text(headers, TENANT)? {
        None | Some("") => Ok(None),
        Some(name) if name.len() > MAX_TENANT => Err(wrong(
            TENANT,
            format!("a tenant's name has at most {MAX_TENANT} characters"),
        )),
        Some(name) => Ok(Some(name.to_owned())),
    }
}

/// The W3C trace context. A malformed one is ignored, as W3C demands: it is not worth a failed request.
pub(crate) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = headers.get("traceparent")?.to_str().ok()?.trim();
    if !is_traceparent(parent) {
        return None;
    }
    let states: Vec<&str> = headers
        .get_all("tracestate")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let state = states.join(",");
    Some(TraceContext {
        parent: parent.to_owned(),
        state: Some(state).filter(|state| !state.is_empty() && state.len() <= MAX_TRACESTATE),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(headers: &[(&'static str, &str)]) -> Result<CallHeaders, HttpError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        CallHeaders::read(&map, Duration::from_secs(600), Duration::from_secs(3600))
    }

    #[test]
    fn nothing_said_is_the_default() {
        let none = CallHeaders {
            timeout: Duration::from_secs(600),
            priority: 0,
            asked_priority: None,
            tenant: None,
            session: None,
            explain: false,
        };
        assert_eq!(read(&[]).unwrap(), none);
    }

    #[test]
    fn the_timeout_is_what_was_asked_for_up_to_the_bound() {
        let timeout = |text: &str| read(&[(TIMEOUT, text)]).map(|headers| headers.timeout);
        assert_eq!(timeout("2.5"), Ok(Duration::from_millis(2500)));
        assert_eq!(timeout(" 30 "), Ok(Duration::from_secs(30)));
        assert_eq!(timeout("601"), Ok(Duration::from_secs(601)));
        assert_eq!(timeout("3601"), Ok(Duration::from_secs(3600)));
        assert_eq!(timeout("1e300"), Ok(Duration::from_secs(3600)));
        for bad in ["0", "-1", "soon", "", "NaN", "inf", "10s"] {
            assert!(
                matches!(timeout(bad), Err(HttpError::Header { name: TIMEOUT, .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_client_without_a_key_has_at_most_the_bound() {
        for (asked, bound, gets) in [("7", 4, 4), ("-7", 4, -7), ("7", -1, -1)] {
            let mut headers = read(&[(PRIORITY, asked)]).unwrap();
            headers.bound(None, bound);
            assert_eq!(headers.priority, gets);
        }
        let mut none = read(&[]).unwrap();
        none.bound(None, 4);
        assert_eq!(none.priority, 0);
    }

    #[test]
    fn priority_and_tenant_are_bounded() {
        let headers = read(&[(PRIORITY, "-7"), (TENANT, "team a")]).unwrap();
        assert_eq!((headers.priority, headers.tenant.as_deref()), (-7, Some("team a")));
        assert_eq!(read(&[(PRIORITY, "2000000000")]).unwrap().priority, MAX_PRIORITY);
        assert!(read(&[(PRIORITY, "high")]).is_err());
        assert!(read(&[(TENANT, &"x".repeat(MAX_TENANT + 1))]).is_err());
        assert_eq!(read(&[(TENANT, " ")]).unwrap().tenant, None);
    }

    #[test]
    fn a_trace_is_read_when_it_is_one() {
        let read = |given: &[(&'static str, &str)]| {
            let given = given
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(name, value);
            }
            trace(&headers)
        };
        let states = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")];
        let known = read(&states).unwrap();
        assert_eq!(
            (known.parent.as_str(), known.state.as_deref()),
            (PARENT, Some("a=1,b=2"))
        );
        let long = read(&[("traceparent", PARENT), ("tracestate", &"x".repeat(513))]);
        assert_eq!(long.unwrap().state, None);
        assert_eq!(read(&[("traceparent", "00-no-trace-01"), ("tracestate", "a=1")]), None);
    }
}
