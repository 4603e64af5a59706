//! Checks one streamed answer, event by event.

use tokenbus_http_parts::{CompletionPattern, Event};

use super::failure::{Failure, Kind};
use super::openai::{Choice, ParsedChunk, Text, Usage, error_parts};
use super::sim_text::SimText;

/// Strictness of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// The answer arrives whole and holds no error.
    Transport,
    /// As `Transport`, and it is exactly what OpenAI's interface promises.
    Protocol,
    /// As the one before, and its text is the simulated engine's, token for token.
    Sim,
}

/// The rules for the answers of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The strictness.
    pub(crate) level: Level,
    /// Whether the request asks for usage.
    pub(crate) usage: bool,
    /// Tokens that the request asks for.
    pub(crate) max_tokens: u64,
}

/// The state of one streamed answer.
#[derive(Debug)]
pub(crate) struct StreamCheck {
    rules: Rules,
    id: String,
    pattern: CompletionPattern,
    text: SimText,
    role_seen: bool,
    finished: bool,
    done: bool,
    usage: Option<Usage>,
    output_events: u64,
    failure: Option<Failure>,
}

impl StreamCheck {
    /// A check that awaits its first answer.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            id: String::new(),
            pattern: CompletionPattern::default(),
            text: SimText::default(),
            role_seen: false,
            finished: false,
            done: false,
            usage: None,
            output_events: 0,
            failure: None,
        }
    }

    /// Resets the check for the next answer; the buffers keep their memory.
    pub(crate) fn reset(&mut self) {
        self.id.clear();
        self.pattern.clear();
        self.text.reset();
        self.role_seen = false;
        self.finished = false;
        self.done = false;
        self.usage = None;
        self.output_events = 0;
        self.failure = None;
    }

    /// Tokens received: by the server's count, else by the text, else one per event.
    pub(crate) fn tokens(&self) -> u64 {
        match (self.usage, self.rules.level) {
            (Some(usage), _) => usage.completion_tokens,
            (None, Level::Sim) => self.text.tokens(),
            (None, _) => self.output_events,
        }
    }

    /// Records a failure that the reader of the stream found; only the first one counts.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// Checks the next event; true where it carried output of the model.
    pub(crate) fn event(&mut self, event: Event<'_>) -> bool {
        if self.done {
            self.broken(Kind::AfterDone, || excerpt(event.data));
            return false;
        }
        if !self.finished
            && event.name.is_empty()
            && let Some(found) = self.pattern.read(event.data)
        {
            // The chunk differs only in its content from one that passed before.
            self.check_text(&found.text);
            return self.count_output(true);
        }
        if event.data == b"[DONE]" {
            self.done = true;
            if !self.finished {
                self.broken(Kind::Truncated, || "[DONE] without a finish_reason".to_owned());
            }
            return false;
        }
        match serde_json::from_slice::<ParsedChunk<'_>>(event.data) {
            Ok(chunk) => self.chunk(&chunk, event),
            Err(error) => {
                self.fail(Failure::of(
                    Kind::Malformed,
                    format!("{error}: {}", excerpt(event.data)),
                ));
                false
            }
        }
    }

    /// Ends the check with the body, which may end in the middle of an event. Returns the failure, if there was one.
    pub(crate) fn end(&mut self, inside_event: bool) -> Option<Failure> {
        let Rules {
            level,
            usage,
            max_tokens,
        } = self.rules;
        if inside_event {
            self.fail(Failure::of(Kind::Truncated, "the stream ended inside an event"));
        }
        if !self.finished && (level > Level::Transport || !self.done) {
            self.fail(Failure::of(Kind::Truncated, "the stream ended without a finish_reason"));
        }
        if !self.done {
            self.broken(Kind::MissingDone, || "the stream ended without [DONE]".to_owned());
        }
        if usage && self.usage.is_none() {
            self.broken(Kind::MissingUsage, || "usage was asked for (see --usage)".to_owned());
        }
        if level == Level::Sim && self.failure.is_none() {
            let got = self.text.tokens();
            self.failure = check_count(got, self.text.is_whole(), self.usage, max_tokens);
        }
        self.failure.take()
    }

    fn chunk(&mut self, chunk: &ParsedChunk<'_>, event: Event<'_>) -> bool {
        if let Some(error) = chunk.error {
            let (code, message) = error_parts(error);
            self.fail(Failure::new(Kind::ErrorEvent, code, message));
            return false;
        }
        if event.is_error() {
            self.fail(Failure::of(Kind::ErrorEvent, excerpt(event.data)));
            return false;
        }
        self.check_head(chunk);
        self.usage = chunk.usage.or(self.usage);
        let Some(choices) = &chunk.choices else { return false };
        let Some(choice) = &choices.first else { return false };
        if choice.index != 0 || choices.more > 0 {
            self.broken(Kind::UnexpectedChoice, || excerpt(event.data));
        }
        let output = self.choice(choice, event);
        if self.failure.is_none() && output && !self.finished && chunk.usage.is_none() {
            let content = choice.delta.as_ref().and_then(|d| d.content.as_ref());
            if let Some(Text(std::borrow::Cow::Borrowed(content))) = content
                && !content.is_empty()
            {
                self.pattern.learn(event.data, content, None);
            }
        }
        output
    }

    fn check_head(&mut self, chunk: &ParsedChunk<'_>) {
        let object = Text::of(&chunk.object);
        if object != "chat.completion.chunk" {
            self.broken(Kind::WrongObject, || format!("object {object:?}"));
        }
        let id = Text::of(&chunk.id);
        if id.is_empty() {
            self.broken(Kind::WrongId, || "no id".to_owned());
        } else if self.id.is_empty() {
            self.id.push_str(id);
        } else if self.id != id {
            let before = std::mem::take(&mut self.id);
            self.broken(Kind::WrongId, || format!("{before:?} became {id:?}"));
            self.id.push_str(id);
        }
    }

    fn choice(&mut self, choice: &Choice<'_>, event: Event<'_>) -> bool {
        let finish = choice.finish_reason.as_ref().map(|f| f.0.as_ref());
        if self.finished {
            let kind = if finish.is_some() {
                Kind::FinishTwice
            } else {
                Kind::AfterFinish
            };
            self.broken(kind, || excerpt(event.data));
        }
        let mut output = false;
        if let Some(delta) = &choice.delta {
            if !self.role_seen {
                self.role_seen = true;
                if Text::of(&delta.role) != "assistant" {
                    self.broken(Kind::MissingRole, || excerpt(event.data));
                }
            }
            output = delta.has_output();
            self.check_text(Text::of(&delta.content));
        }
        if let Some(reason) = finish {
            self.finished = true;
            if self.rules.level == Level::Sim && reason != "length" {
                self.broken(Kind::WrongFinish, || format!("{reason:?} instead of \"length\""));
            }
        }
        self.count_output(output)
    }

    fn check_text(&mut self, content: &str) {
        if self.rules.level == Level::Sim
            && self.failure.is_none()
            && let Some(failure) = check_sim(&mut self.text, content)
        {
            self.failure = Some(failure);
        }
    }

    fn count_output(&mut self, output: bool) -> bool {
        self.output_events += u64::from(output);
        output
    }

    /// Records a breach of the interface's promises; ignored where only transport is checked.
    fn broken(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        if self.rules.level > Level::Transport && self.failure.is_none() {
            self.failure = Some(Failure::of(kind, example()));
        }
    }
}

/// Checks an answer in one piece. Returns its failure, if there is one, and its tokens.
pub(crate) fn check_unary(rules: Rules, body: &[u8]) -> (Option<Failure>, u64) {
    let chunk = match serde_json::from_slice::<ParsedChunk<'_>>(body) {
        Ok(chunk) => chunk,
        Err(e) => return (Some(Failure::of(Kind::Malformed, format!("{e}: {}", excerpt(body)))), 0),
    };
    if let Some(error) = chunk.error {
        let (code, message) = error_parts(error);
        return (Some(Failure::new(Kind::ErrorEvent, code, message)), 0);
    }
    let counted = chunk.usage.map_or(0, |u| u.completion_tokens);
    if rules.level == Level::Transport {
        return (None, counted);
    }
    let mut text = SimText::default();
    let failure = whole_failure(rules, &chunk, &mut text);
    let tokens = if chunk.usage.is_none() { text.tokens() } else { counted };
    (failure, tokens)
}

fn whole_failure(rules: Rules, chunk: &ParsedChunk<'_>, text: &mut SimText) -> Option<Failure> {
    let object = Text::of(&chunk.object);
    if object != "chat.completion" {
        return Some(Failure::of(Kind::WrongObject, format!("object {object:?}")));
    }
    if Text::of(&chunk.id).is_empty() {
        return Some(Failure::of(Kind::WrongId, "no id"));
    }
    let (choice, more) = chunk.choices.as_ref().map_or((None, 0), |c| (c.first.as_ref(), c.more));
    let Some(choice) = choice else {
        return Some(Failure::of(Kind::Truncated, "no choice"));
    };
    if choice.index != 0 || more > 0 {
        return Some(Failure::of(Kind::UnexpectedChoice, format!("{} choices", more + 1)));
    }
    let Some(message) = &choice.message else {
        return Some(Failure::of(Kind::Truncated, "no message"));
    };
    if Text::of(&message.role) != "assistant" {
        return Some(Failure::of(
            Kind::MissingRole,
            format!("role {:?}", Text::of(&message.role)),
        ));
    }
    let reason = Text::of(&choice.finish_reason);
    if reason.is_empty() {
        return Some(Failure::of(Kind::Truncated, "no finish_reason"));
    }
    if rules.usage && chunk.usage.is_none() {
        return Some(Failure::of(Kind::MissingUsage, "no usage (see --usage)"));
    }
    if rules.level < Level::Sim {
        return None;
    }
    if let Some(failure) = check_sim(text, Text::of(&message.content)) {
        return Some(failure);
    }
    if reason != "length" {
        return Some(Failure::of(
            Kind::WrongFinish,
            format!("{reason:?} instead of \"length\""),
        ));
    }
    check_count(text.tokens(), text.is_whole(), chunk.usage, rules.max_tokens)
}

fn check_sim(text: &mut SimText, content: &str) -> Option<Failure> {
    if text.accept(content.as_bytes()) {
        return None;
    }
    let due = String::from_utf8_lossy(text.due());
    let example = format!("after {} tokens {content:?} instead of {due:?}", text.tokens());
    Some(Failure::of(Kind::WrongText, example))
}

fn check_count(got: u64, whole: bool, usage: Option<Usage>, want: u64) -> Option<Failure> {
    if got != want || !whole {
        return Some(Failure::of(
            Kind::WrongLength,
            format!("{got} tokens instead of {want}"),
        ));
    }
    let counted = usage.map_or(got, |u| u.completion_tokens);
    (counted != got).then(|| Failure::of(Kind::WrongUsage, format!("usage says {counted} tokens, {got} came")))
}

/// The beginning of some bytes as text, for a report.
pub(crate) fn excerpt(data: &[u8]) -> String {
    let head = data.get(..super::limits::EXAMPLE_BYTES).unwrap_or(data);
    String::from_utf8_lossy(head).into_owned()
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
