//! What the engine says of the end of its choices: whole, given up, or failed. Pure.

use std::borrow::Cow;

use tokenbus_protocol::EngineError;

use super::finish_reason::{Ending, ending};
use crate::engine::openai::error::{self, Secrets};
use crate::engine::openai::wire::completion_chunk::{Choice, Chunk, is_nothing};

/// Why a choice has ended, in OpenAI's words; `None` if its engine does not say.
///
/// # Errors
/// The engine gave the choice up or failed. Some say so in a member `error` of the choice alone, and send `[DONE]`.
pub(super) fn reason(choice: &Choice<'_>, secrets: &Secrets) -> Result<Option<&'static str>, EngineError> {
    let why = choice.rest.get("error").filter(|error| !is_nothing(error));
    let why = why.map(|why| error::from_stream(why.get(), secrets));
    match choice.finish_reason.as_deref().map(|said| (said, ending(said))) {
        Some((_, Ending::Whole(reason))) => Ok(Some(reason)),
        Some((said, Ending::GivenUp)) => Err(why.unwrap_or_else(|| error::given_up(said, secrets))),
        None => why.map_or(Ok(None), Err),
    }
}

/// Writes OpenAI's finish reasons into the choices of `chunk`. Where the engine gave one of them up, that is
/// an error, and the choice is not finished.
pub(super) fn given_up(chunk: &mut Chunk<'_>, secrets: &Secrets) -> Option<EngineError> {
    let mut given_up = None;
    for choice in &mut chunk.choices {
        match reason(choice, secrets) {
            Ok(reason) => choice.finish_reason = reason.map(Cow::Borrowed),
            Err(error) => {
                given_up = Some(error);
                choice.finish_reason = None;
                choice.rest.remove("error");
            }
        }
    }
    given_up
}
