//! The first question of `up`, asked through its own HTTP gateway like any client's.

use std::time::Instant;

use crate::chat::api::{Api, ApiError, Message, Piece};
use crate::{limits, outlet, ui};

/// Asks `model` and streams the answer to standard output, then says how fast it came.
///
/// # Errors
/// [`ApiError`], when there is no answer or it breaks off.
pub(super) async fn ask(api: &Api, model: &str, question: &str, since: Instant) -> Result<(), ApiError> {
    let asked = Instant::now();
    let mut first = None;
    let outcome = api
        .chat(model, &[Message::new("user", question)], |piece| {
            let (Piece::Text(text) | Piece::Reasoning(text)) = piece else {
                return;
            };
            if first.is_none() && !text.is_empty() {
                first = Some(Instant::now());
                outlet::stdout().line(format_args!("\n> {question}\n"));
            }
            outlet::stdout().write(text);
        })
        .await;
    if first.is_some() {
        // Before what is said on standard error, where both are one terminal.
        outlet::stdout().write("\n\n");
        outlet::stdout().flush(limits::LAST_WORDS);
    }
    outcome?;
    if let Some(first) = first {
        let (ttft, start) = ((first - asked).as_secs_f64(), (first - since).as_secs_f64());
        ui::complain(format_args!(
            "first token {ttft:.2} s after the question, {start:.1} s after the start"
        ));
    }
    Ok(())
}
