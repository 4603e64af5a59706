//! Watches the head of each HTTP/1 request as its bytes arrive: when it has begun, when it is whole, and whether it
//! says the length of its body in two ways.

/// How far the head of the next request has come.
#[derive(Debug, Default)]
pub(crate) struct HeadWatch {
    began: bool,
    ended: bool,
    /// The beginning of the present line, in lower case.
    line: Vec<u8>,
    has_length: bool,
    has_coding: bool,
}

/// Bytes of a line that are kept: the longer of the two names and its colon.
const NAME: usize = CODING.len();
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

impl HeadWatch {
    /// Takes bytes from the client. Those behind the head are ignored.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.ended {
                return;
            }
            match byte {
                b'\r' => {}
                b'\n' => self.end_line(),
                // White space before the colon is an error of the library's.
                byte if self.line.len() < NAME => self.line.push(byte.to_ascii_lowercase()),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        // Empty lines before a request are allowed, and are not yet the request.
        self.ended = self.began && self.line.is_empty();
        self.began |= !self.line.is_empty();
        self.has_length |= self.line.starts_with(LENGTH);
        self.has_coding |= self.line.starts_with(CODING);
        self.line.clear();
    }

    /// Whether a head has begun and is not whole.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.ended && (self.began || !self.line.is_empty())
    }

    /// Whether the whole head has both a `Content-Length` and a `Transfer-Encoding`. The library drops the length, so
    /// the request itself no longer tells. Such a request may be read in two ways on its way here.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ended && self.has_length && self.has_coding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(pieces: &[&str]) -> HeadWatch {
        let mut watch = HeadWatch::default();
        for piece in pieces {
            watch.feed(piece.as_bytes());
        }
        watch
    }

    #[test]
    fn a_head_begins_with_its_first_byte_and_ends_with_an_empty_line() {
        assert!(!watch(&[]).is_unfinished());
        assert!(!watch(&["\r\n", "\r\n"]).is_unfinished());
        assert!(watch(&["G"]).is_unfinished());
        assert!(watch(&["GET / HTTP/1.1\r\n"]).is_unfinished());
        assert!(watch(&["GET / HTTP/1.1\r\na: b\r\n\r"]).is_unfinished());
        assert!(!watch(&["GET / HTTP/1.1\r\na: b\r\n\r\n"]).is_unfinished());
        assert!(!watch(&["GET / HTTP/1.1\na: b\n\n"]).is_unfinished());
        assert!(!watch(&["GET / HTTP/1.1\r\n\r\nG"]).is_unfinished());
    }

    #[test]
    fn two_lengths_are_found_in_any_order_and_any_pieces() {
        let head = "POST / HTTP/1.1\r\nContent-Length: 5\r\nx: y\r\nTRANSFER-encoding: chunked\r\n\r\n";
        assert!(watch(&[head]).is_ambiguous());
        for at in 0..head.len() {
            let (one, two) = head.split_at(at);
            assert!(watch(&[one, two]).is_ambiguous(), "{at}");
        }
        assert!(watch(&["POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n"]).is_ambiguous());
        for fine in [
            "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nx: content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nx-content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(!watch(&[fine]).is_ambiguous(), "{fine}");
        }
    }
}
