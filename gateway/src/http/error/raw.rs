//! Whole answers for clients whose request the HTTP library has not read.

/// A client took too long for its request's head.
pub(crate) const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The gateway has as many connections as it may have.
pub(crate) const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
retry-after: 1\r\nx-should-retry: true\r\ncontent-type: application/json\r\ncontent-length: 158\r\n\r\n\
{\"error\":{\"message\":\"The gateway has as many connections as it may have. Try again shortly\",\
\"type\":\"server_error\",\"param\":null,\"code\":\"too_many_connections\"}}";

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_answer_says_its_true_length() {
        for raw in [REQUEST_TIMEOUT, TOO_MANY_CONNECTIONS] {
            let (head, body) = std::str::from_utf8(raw).unwrap().split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("content-length: {}", body.len())),
                "{}",
                body.len()
            );
            assert!(body.is_empty() || serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
    }
}
