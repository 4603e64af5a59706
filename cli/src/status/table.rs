//! The view as lines of text.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table};
use tokenbus_protocol::{
    Capacity, LostWorker, ModelCapacity, Name, Quantiles, WorkerCapacity, WorkerReport, WorkerState,
};

use super::limits::{CELL, MODELS_NAMED};
use super::view::{Source, View};

/// How urgent a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// All is well.
    Plain,
    /// The head of a table.
    Head,
    /// Worth a look.
    Notice,
    /// Something is lost or refused.
    Alarm,
}

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// What it says.
    pub(super) text: String,
    /// How urgent it is.
    pub(super) tone: Tone,
}

impl Line {
    /// A line with this text.
    pub(super) fn new(tone: Tone, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, tone }
    }
}

/// The view as lines for a terminal of `width` columns: where they do not fit, tables lose the columns that matter least.
/// What came over the bus is stripped of control characters: a model's name must not move the cursor.
pub(super) fn lines(view: &View, width: usize) -> Vec<Line> {
    let empty = || Line::new(Tone::Plain, "");
    let (heading, alone) = (heading(view), view.source == Source::Workers);
    let mut lines = vec![
        Line::new(if alone { Tone::Notice } else { Tone::Plain }, heading),
        empty(),
    ];
    if view.capacity.models.is_empty() {
        lines.push(Line::new(Tone::Notice, "no model is served"));
    } else {
        let tones = view.capacity.models.iter().map(model_tone);
        lines.extend(toned(models(&view.capacity, width), tones));
    }
    lines.push(empty());
    if view.capacity.workers.is_empty() {
        lines.push(Line::new(Tone::Alarm, "no worker"));
    } else {
        let tones = view
            .capacity
            .workers
            .iter()
            .map(|worker| state_tone(worker.report.state));
        lines.extend(toned(workers(&view.capacity.workers, width), tones));
    }
    if !view.capacity.lost.is_empty() {
        lines.push(empty());
        let failed = |worker: &LostWorker| if worker.failed > 0 { Tone::Alarm } else { Tone::Notice };
        lines.extend(toned(
            lost(&view.capacity.lost, width),
            view.capacity.lost.iter().map(failed),
        ));
    }
    lines
}

/// The lines as plain text.
pub(super) fn plain(lines: &[Line]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    lines.join("\n")
}

/// The lines of a table: its head, and its rows with their tones.
fn toned(lines: Vec<String>, tones: impl Iterator<Item = Tone>) -> Vec<Line> {
    let tones = [Tone::Head]
        .into_iter()
        .chain(tones)
        .chain(std::iter::repeat(Tone::Plain));
    lines
        .into_iter()
        .zip(tones)
        .map(|(text, tone)| Line { text, tone })
        .collect()
}

fn model_tone(model: &ModelCapacity) -> Tone {
    match (model.workers, model.free) {
        (0, _) if !model.on_demand => Tone::Alarm,
        (_, 0) => Tone::Notice,
        _ => Tone::Plain,
    }
}

fn state_tone(state: WorkerState) -> Tone {
    match state {
        WorkerState::Ready => Tone::Plain,
        WorkerState::Starting | WorkerState::Draining | WorkerState::Stopped => Tone::Notice,
        WorkerState::Unavailable => Tone::Alarm,
    }
}

const LOST_HEADER: [&str; 7] = ["LOST WORKER", "HOST", "MODELS", "SILENT", "RAN", "MOVED", "FAILED"];

/// The lost workers, and what became of the streams that ran there.
fn lost(workers: &[LostWorker], width: usize) -> Vec<String> {
    let rows = workers.iter().map(|worker| {
        vec![
            text(worker.worker.as_str()),
            text(&worker.host),
            text(&worker.models.join(", ")),
            milliseconds(worker.age_ms),
            worker.active.to_string(),
            worker.moved.to_string(),
            worker.failed.to_string(),
        ]
    });
    table(&LOST_HEADER, 3, rows.collect(), &["HOST", "RAN", "MODELS"], width)
}

fn heading(view: &View) -> String {
    let leader = match view.source {
        Source::Coordinator => format!("coordinator {} leads", view.capacity.coordinator),
        Source::Workers => "no coordinator: these are the workers' own words".to_owned(),
    };
    let leads = |id: &Name, leading: bool| leading || *id == view.capacity.coordinator;
    let others: Vec<&str> = view
        .coordinators
        .iter()
        .filter(|(id, leading)| !leads(id, **leading))
        .map(|(id, _)| id.as_str())
        .collect();
    let standby = if others.is_empty() {
        String::new()
    } else {
        format!(", standing by: {}", others.join(", "))
    };
    format!("cluster {}: {leader}{standby}", view.namespace)
}

const MODEL_HEADER: [&str; 10] = [
    "MODEL", "WORKERS", "SLOTS", "FREE", "ACTIVE", "QUEUED", "WAITING", "TOKENS/S", "WAIT", "DESIRED",
];

fn models(capacity: &Capacity, width: usize) -> Vec<String> {
    let none = || "-".to_owned();
    let total = &capacity.total;
    // Slots of several models may be the same ones, so the sums are not those of the lines above. A coordinator of
    // an older version tells none.
    let all = (capacity.models.len() > 1 && total.workers > 0).then(|| {
        vec![
            "(all)".to_owned(),
            total.workers.to_string(),
            total.slots.to_string(),
            total.free.to_string(),
            total.active.to_string(),
            total.queued.to_string(),
            total.waiting.to_string(),
            rate(total.tokens_per_second),
            none(),
            none(),
        ]
    });
    let rows = capacity.models.iter().map(|model| {
        vec![
            text(&model.model),
            model.workers.to_string(),
            model.slots.to_string(),
            model.free.to_string(),
            model.active.to_string(),
            model.queued.to_string(),
            model.waiting.to_string(),
            rate(model.tokens_per_second),
            model.estimated_wait_ms.map_or_else(none, milliseconds),
            model.desired_workers.to_string(),
        ]
    });
    let expendable = ["QUEUED", "DESIRED", "WAIT", "SLOTS", "WORKERS"];
    table(&MODEL_HEADER, 1, rows.chain(all).collect(), &expendable, width)
}

const WORKER_HEADER: [&str; 11] = [
    "WORKER", "HOST", "ENGINE", "STATE", "MODELS", "SLOTS", "QUEUED", "TOKENS/S", "TTFT P50", "P99", "AGE",
];

/// Running requests, slots, and where the number of slots comes from.
fn slots(report: &WorkerReport) -> String {
    let from = report.slots_from.map_or_else(String::new, |from| format!(" {from}"));
    format!("{}/{}{from}", report.active, report.slots)
}

fn workers(workers: &[WorkerCapacity], width: usize) -> Vec<String> {
    let rows = workers.iter().map(|worker| {
        let (p50, p99) = ttft(worker.report.ttft);
        vec![
            text(worker.report.worker.as_str()),
            text(&worker.report.host),
            text(&worker.report.engine),
            worker.report.state.to_string(),
            served(worker),
            slots(&worker.report),
            worker.report.queued.to_string(),
            rate(worker.report.tokens_per_second),
            p50,
            p99,
            milliseconds(worker.age_ms),
        ]
    });
    let expendable = ["ENGINE", "HOST", "P99", "QUEUED", "AGE", "TTFT P50", "MODELS"];
    table(&WORKER_HEADER, 5, rows.collect(), &expendable, width)
}

fn served(worker: &WorkerCapacity) -> String {
    let named: Vec<&str> = worker
        .report
        .models
        .iter()
        .take(MODELS_NAMED)
        .map(|model| model.name.as_str())
        .collect();
    let more = worker.report.models.len().saturating_sub(MODELS_NAMED);
    let named = text(&named.join(", "));
    match (named.is_empty(), more) {
        (true, _) => "-".to_owned(),
        (false, 0) => named,
        (false, more) => format!("{named} +{more}"),
    }
}

/// A table whose first `words` columns are text, the others numbers. While it is wider than `width`, the next of the
/// `expendable` columns is left out.
fn table(header: &[&str], words: usize, rows: Vec<Vec<String>>, expendable: &[&str], width: usize) -> Vec<String> {
    let lines = whole_table(header, words, &rows);
    let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let Some((first, later)) = expendable.split_first().filter(|_| widest > width) else {
        return lines;
    };
    let without = |at: usize| {
        let kept = |row: Vec<String>| -> Vec<String> {
            let cells = row.into_iter().enumerate();
            cells
                .filter(|(column, _)| *column != at)
                .map(|(_, cell)| cell)
                .collect()
        };
        let header: Vec<&str> = header.iter().copied().filter(|title| title != first).collect();
        let rows = rows.into_iter().map(kept).collect();
        table(&header, words - usize::from(at < words), rows, later, width)
    };
    match header.iter().position(|title| title == first) {
        Some(at) => without(at),
        None => lines,
    }
}

fn whole_table(header: &[&str], words: usize, rows: &[Vec<String>]) -> Vec<String> {
    let aligned = |cells: Vec<String>| -> Vec<Cell> {
        let align = |(column, text): (usize, String)| {
            let alignment = if column < words {
                CellAlignment::Left
            } else {
                CellAlignment::Right
            };
            Cell::new_owned(text).set_alignment(alignment)
        };
        cells.into_iter().enumerate().map(align).collect()
    };
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(aligned(header.iter().map(|title| (*title).to_owned()).collect()));
    for row in rows {
        table.add_row(aligned(row.clone()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Text from the bus, fit for a terminal.
fn text(raw: &str) -> String {
    let visible: Vec<char> = raw.chars().map(|c| if is_harmless(c) { c } else { '?' }).collect();
    if visible.len() <= CELL {
        return visible.into_iter().collect();
    }
    visible.into_iter().take(CELL - 1).chain(['…']).collect()
}

/// Neither a control character nor one that turns the direction of writing round.
fn is_harmless(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

fn rate(tokens_per_second: f64) -> String {
    if tokens_per_second >= 100.0 {
        format!("{tokens_per_second:.0}")
    } else {
        format!("{tokens_per_second:.1}")
    }
}

/// Both quantiles, or dashes while nothing was measured.
fn ttft(of: Quantiles) -> (String, String) {
    if of.p50 <= 0.0 && of.p99 <= 0.0 {
        return ("-".to_owned(), "-".to_owned());
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a latency; the cast saturates"
    )]
    let whole = |ms: f64| milliseconds(ms.round() as u64);
    (whole(of.p50), whole(of.p99))
}

/// A time as a person reads it: two or three digits and a unit.
fn milliseconds(ms: u64) -> String {
    let (seconds, tenths) = (ms / 1000, ms % 1000 / 100);
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{seconds}.{tenths} s"),
        10_000..120_000 => format!("{seconds} s"),
        120_000..7_200_000 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
