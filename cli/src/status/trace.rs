//! `tokenbus trace`: the story of one request, as the gateways tell it.

use std::fmt::Write as _;

use futures_util::StreamExt as _;
use tokenbus_bus::Bus;
use tokenbus_bus::clock::unix_ms;
use tokenbus_protocol::{Name, Step, StepKind, Stories, Story, StoryQuestion, Subjects, decode, encode};
use tokio::time::{Instant as Deadline, timeout_at};

use super::error::StatusError;
use super::limits::STORIES;

/// The stories of one request that one gateway knows.
type Told = Vec<Stories>;

/// Asks all gateways. Nobody knows how many there are, so it listens for a while.
pub(super) async fn ask(bus: &Bus, namespace: &Name, request: &str) -> Result<Told, StatusError> {
    let subjects = Subjects::new(namespace.clone());
    let inbox = bus.client().new_inbox();
    let mut answers = bus.subscribe(inbox.clone()).await?;
    let question = StoryQuestion {
        request: request.to_owned(),
    };
    bus.publish_with_reply(subjects.trace(), inbox, encode(&question)?.into())
        .await?;
    let deadline = Deadline::now() + STORIES;
    let mut told = Vec::new();
    while let Ok(Some(message)) = timeout_at(deadline, answers.next()).await {
        if message.status.is_some() {
            return Err(StatusError::NoGateway);
        }
        told.push(decode(&message.payload)?);
    }
    Ok(told)
}

/// The stories for a human, the oldest first.
pub(super) fn text(told: &[Stories]) -> String {
    let mut all: Vec<(&Name, &Story)> = told
        .iter()
        .flat_map(|one| one.stories.iter().map(move |story| (&one.gateway, story)))
        .collect();
    all.sort_by_key(|(_, story)| story.at_ms);
    let stories: Vec<String> = all
        .into_iter()
        .map(|(gateway, story)| one(gateway, story, unix_ms()))
        .collect();
    stories.join("\n\n")
}

/// One story.
fn one(gateway: &Name, story: &Story, now_ms: u64) -> String {
    let ago = now_ms.saturating_sub(story.at_ms) / 1000;
    let mut text = format!(
        "{} {}, ended {ago} s ago at gateway {gateway}",
        story.request, story.api
    );
    let named = [
        ("call", story.call.map(|call| call.to_string())),
        ("model", story.model.clone()),
        ("served by model", story.served.clone()),
        ("key", story.key.clone()),
        ("tenant", story.tenant.clone()),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            // Writing to a string cannot fail; so below.
            let _ = write!(text, "\n  {name}: {value}");
        }
    }
    let mut lines: Vec<(u64, String)> = story.steps.iter().map(|step| (step.after_ms, words(step))).collect();
    if let Some(ttft) = story.ttft_ms {
        lines.push((ttft, "first output".to_owned()));
    }
    // Stable: steps of one millisecond keep their order.
    lines.sort_by_key(|(after, _)| *after);
    for (after, words) in lines {
        let _ = write!(text, "\n{after:>9} ms  {words}");
    }
    if story.more_steps > 0 {
        let _ = write!(text, "\n              and {} more steps", story.more_steps);
    }
    let _ = write!(text, "\n{:>9} ms  {}", story.duration_ms, end(story));
    text
}

fn words(step: &Step) -> String {
    let worker = step.worker.as_ref().map_or("?", Name::as_str);
    let attempt = step
        .attempt
        .map_or_else(String::new, |attempt| format!(", attempt {attempt}"));
    let why = step.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    match step.kind {
        StepKind::Waits => "waits for a free slot".to_owned(),
        StepKind::Sent if step.worker.is_none() => format!("sent to the queue of the model's workers{attempt}{why}"),
        StepKind::Sent => format!("sent to {worker}{attempt}{why}"),
        StepKind::Accepted => format!("accepted by {worker}{attempt}"),
        StepKind::Refused => format!("refused by {worker}{attempt}{why}"),
        StepKind::Unanswered => format!("nobody was there to take it{attempt}"),
        StepKind::Left => format!("left {worker}{attempt}{why}"),
        StepKind::Other => "something that only a newer version knows".to_owned(),
    }
}

fn end(story: &Story) -> String {
    let mut text = format!("{} with status {}", story.outcome, story.status);
    if let Some(error) = &story.error {
        let code = story.code.as_ref().map_or_else(String::new, |code| format!(" {code}"));
        let _ = write!(text, "{code}: {error}");
    }
    let _ = write!(
        text,
        "; {} attempts, waited {} ms; tokens: {} in the prompt ({} from a cache), {} generated",
        story.attempts, story.wait_ms, story.prompt_tokens, story.cached_tokens, story.completion_tokens
    );
    if let Some(itl) = story.itl_p99_ms {
        let _ = write!(text, ", 99 % of them within {itl} ms of the one before");
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenbus_protocol::UsageOutcome;

    use super::*;

    #[test]
    fn a_story_reads_in_order() {
        let (gateway, worker) = (Name::new("gw").unwrap(), Name::new("w1").unwrap());
        let step = |after_ms, kind, worker: Option<&Name>, why: Option<&str>| Step {
            after_ms,
            kind,
            attempt: worker.map(|_| 0),
            worker: worker.cloned(),
            cause: None,
            why: why.map(str::to_owned),
        };
        let story = Story {
            request: "r".to_owned(),
            call: None,
            api: "/v1/chat/completions".to_owned(),
            key: Some("alice".to_owned()),
            tenant: None,
            model: Some("m".to_owned()),
            served: None,
            worker: Some(worker.clone()),
            at_ms: 5000,
            steps: vec![
                step(1, StepKind::Waits, None, None),
                step(20, StepKind::Sent, Some(&worker), None),
                step(21, StepKind::Accepted, Some(&worker), None),
                step(90, StepKind::Left, Some(&worker), Some("no responders")),
            ],
            more_steps: 2,
            attempts: 1,
            wait_ms: 19,
            outcome: UsageOutcome::Failed,
            status: 200,
            code: Some("worker_lost".to_owned()),
            error: Some("The worker of this stream was lost".to_owned()),
            prompt_tokens: 7,
            cached_tokens: 3,
            completion_tokens: 9,
            ttft_ms: Some(40),
            itl_p99_ms: Some(12),
            duration_ms: 100,
        };
        let expected = "\
r /v1/chat/completions, ended 2 s ago at gateway gw
  model: m
  key: alice
        1 ms  waits for a free slot
       20 ms  sent to w1, attempt 0
       21 ms  accepted by w1, attempt 0
       40 ms  first output
       90 ms  left w1, attempt 0: no responders
              and 2 more steps
      100 ms  failed with status 200 worker_lost: The worker of this stream was lost; 1 attempts, waited 19 ms; \
tokens: 7 in the prompt (3 from a cache), 9 generated, 99 % of them within 12 ms of the one before";
        assert_eq!(one(&gateway, &story, 7000), expected);
    }
}
