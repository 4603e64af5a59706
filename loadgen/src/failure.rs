//! Failures of requests.

use super::limits::EXAMPLE_BYTES;

/// The kinds of failure. [`Kind::name`] is part of the JSON report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// No connection (the code says why).
    Connect,
    /// The server closed or reset the connection before it answered.
    Closed,
    /// The connection was reset in the middle of an answer.
    Reset,
    /// The answer is not valid HTTP.
    Http,
    /// No full answer within `--timeout` (the code says how far it got).
    Timeout,
    /// An HTTP status other than 200 (the code is the status, and the error's own code).
    Status,
    /// An error event inside a stream that had begun (the code is the error's own).
    ErrorEvent,
    /// The answer broke off: no finish, or a connection closed in the middle.
    Truncated,
    /// Not `text/event-stream` (or `application/json` where no stream was asked for).
    ContentType,
    /// Not a valid event stream, or not valid JSON in it.
    Malformed,
    /// `object` is not what it should be.
    WrongObject,
    /// No id, or one that changed within the stream.
    WrongId,
    /// The first delta has no role, or it is not `assistant`.
    MissingRole,
    /// A choice that the request did not ask for.
    UnexpectedChoice,
    /// A second `finish_reason`.
    FinishTwice,
    /// Something other than usage after the finish.
    AfterFinish,
    /// `finish_reason` is not what it should be.
    WrongFinish,
    /// The stream ended without `[DONE]`.
    MissingDone,
    /// Something after `[DONE]`.
    AfterDone,
    /// No usage, although the request asked for it.
    MissingUsage,
    /// Usage that does not agree with the tokens received.
    WrongUsage,
    /// The text is not the simulated engine's.
    WrongText,
    /// Another number of tokens than the request asked for.
    WrongLength,
    /// All failures beyond the number that a report tells apart.
    Other,
}

impl Kind {
    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Http => "http",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::ErrorEvent => "error_event",
            Self::Truncated => "truncated",
            Self::ContentType => "content_type",
            Self::Malformed => "malformed",
            Self::WrongObject => "wrong_object",
            Self::WrongId => "wrong_id",
            Self::MissingRole => "missing_role",
            Self::UnexpectedChoice => "unexpected_choice",
            Self::FinishTwice => "finish_twice",
            Self::AfterFinish => "after_finish",
            Self::WrongFinish => "wrong_finish",
            Self::MissingDone => "missing_done",
            Self::AfterDone => "after_done",
            Self::MissingUsage => "missing_usage",
            Self::WrongUsage => "wrong_usage",
            Self::WrongText => "wrong_text",
            Self::WrongLength => "wrong_length",
            Self::Other => "other",
        }
    }
}

/// One failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The kind.
    pub(crate) kind: Kind,
    /// Status or error code that tells failures of one kind apart; empty if there is none.
    pub(crate) code: String,
    /// A text for people; at most [`EXAMPLE_BYTES`].
    pub(crate) example: String,
}

impl Failure {
    /// A failure with its texts cut to their limit.
    pub(crate) fn new(kind: Kind, code: impl Into<String>, example: impl Into<String>) -> Self {
        Self {
            kind,
            code: cut(code.into()),
            example: cut(example.into()),
        }
    }

    /// A failure without a code.
    pub(crate) fn of(kind: Kind, example: impl Into<String>) -> Self {
        Self::new(kind, "", example)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, code, example } = self;
        let space = if code.is_empty() { "" } else { " " };
        write!(f, "{}{space}{code}: {example}", kind.name())
    }
}

fn cut(mut text: String) -> String {
    if text.len() > EXAMPLE_BYTES {
        let end = (0..=EXAMPLE_BYTES)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters() {
        let failure = Failure::of(Kind::Status, "é".repeat(EXAMPLE_BYTES));
        assert_eq!(failure.example, format!("{}…", "é".repeat(EXAMPLE_BYTES / 2)));
    }
}
