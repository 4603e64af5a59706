//! The access log: one line for each request to a model, under the target `access`.

use tokenbus_protocol::{StepKind, Story, UsageOutcome};

macro_rules! line {
    ($level:ident, $story:ident) => {
        tracing::$level!(
            target: "access",
            request = $story.request,
            call = $story.call.as_ref().map(tracing::field::display),
            api = $story.api,
            key = $story.key,
            tenant = $story.tenant,
            model = $story.model,
            served = $story.served,
            worker = $story.worker.as_ref().map(tracing::field::display),
            decision = decision($story),
            attempts = $story.attempts,
            prompt_tokens = $story.prompt_tokens,
            cached_tokens = $story.cached_tokens,
            completion_tokens = $story.completion_tokens,
            wait_ms = $story.wait_ms,
            ttft_ms = $story.ttft_ms,
            itl_p99_ms = $story.itl_p99_ms,
            duration_ms = $story.duration_ms,
            outcome = $story.outcome.as_str(),
            status = $story.status,
            code = $story.code,
            error = $story.error,
            "request ended"
        )
    };
}

/// Writes the line of a request: a warning where the cluster failed.
pub(crate) fn write(story: &Story) {
    match story.outcome {
        UsageOutcome::Failed | UsageOutcome::TimedOut => line!(warn, story),
        UsageOutcome::Succeeded | UsageOutcome::Rejected | UsageOutcome::Cancelled => line!(info, story),
    }
}

/// How its last worker was chosen: the reason of the placement, or whether the gateway or the queue group chose.
fn decision(story: &Story) -> Option<&str> {
    let sent = story.steps.iter().rev().find(|step| step.kind == StepKind::Sent)?;
    let chosen_by = if sent.worker.is_some() { "gateway" } else { "queue" };
    Some(sent.why.as_deref().unwrap_or(chosen_by))
}
