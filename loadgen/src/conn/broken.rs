//! Why an answer could not be read, and which failure of the request that is.

use std::io;

use crate::failure::{Failure, Kind};
use crate::http1::HttpError;

/// Why an answer could not be read.
#[derive(Debug)]
pub(crate) enum Broken {
    /// No byte of the request could be sent.
    Unsent(io::Error),
    /// The socket failed.
    Io(io::Error),
    /// The server closed the connection before the answer's end.
    Eof,
    /// The answer is not HTTP.
    Http(HttpError),
    /// The reader refuses the body's content.
    Refused(Failure),
}

impl Broken {
    /// The failure of the request; `begun` says whether an answer had begun.
    pub(crate) fn into_failure(self, begun: bool) -> Failure {
        let (io, code) = match self {
            Self::Refused(failure) => return failure,
            Self::Http(error) => return Failure::of(Kind::Http, error.to_string()),
            Self::Eof if !begun => return Failure::of(Kind::Closed, "the server closed the connection"),
            Self::Eof => (
                io::Error::from(io::ErrorKind::UnexpectedEof),
                "UnexpectedEof".to_owned(),
            ),
            Self::Unsent(error) | Self::Io(error) => {
                let code = io_code(&error);
                (error, code)
            }
        };
        let kind = match io.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe if begun => Kind::Reset,
            _ if begun => Kind::Truncated,
            _ => Kind::Closed,
        };
        Failure::new(kind, code, io.to_string())
    }
}

/// The name of an error of the operating system.
pub(super) fn io_code(error: &io::Error) -> String {
    format!("{:?}", error.kind())
}
