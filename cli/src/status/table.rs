//! The view as lines of text.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table};
use tokenbus_protocol::{Capacity, LostWorker, Name, Quantiles, WorkerCapacity, WorkerReport};

use super::limits::{CELL, MODELS_NAMED};
use super::view::{Source, View};

/// The view as lines without line ends. What came over the bus is stripped of control characters:
/// a model's name must not move the cursor.
pub(super) fn lines(view: &View) -> Vec<String> {
    let mut lines = vec![heading(view), String::new()];
    if view.capacity.models.is_empty() {
        lines.push("no model is served".to_owned());
    } else {
        lines.extend(models(&view.capacity));
    }
    lines.push(String::new());
    if view.capacity.workers.is_empty() {
        lines.push("no worker".to_owned());
    } else {
        lines.extend(workers(&view.capacity.workers));
    }
    if !view.capacity.lost.is_empty() {
        lines.push(String::new());
        lines.extend(lost(&view.capacity.lost));
    }
    lines
}

const LOST_HEADER: [&str; 7] = ["LOST WORKER", "HOST", "MODELS", "SILENT", "RAN", "MOVED", "FAILED"];

/// The lost workers, and what became of the streams that ran there.
fn lost(workers: &[LostWorker]) -> Vec<String> {
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
    table(&LOST_HEADER, 3, rows)
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

fn models(capacity: &Capacity) -> Vec<String> {
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
    table(&MODEL_HEADER, 1, rows.chain(all))
}

const WORKER_HEADER: [&str; 11] = [
    "WORKER", "HOST", "ENGINE", "STATE", "MODELS", "SLOTS", "QUEUED", "TOKENS/S", "TTFT P50", "P99", "AGE",
];

/// Running requests, slots, and where the number of slots comes from.
fn slots(report: &WorkerReport) -> String {
    let from = report.slots_from.map_or_else(String::new, |from| format!(" {from}"));
    format!("{}/{}{from}", report.active, report.slots)
}

fn workers(workers: &[WorkerCapacity]) -> Vec<String> {
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
    table(&WORKER_HEADER, 5, rows)
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

/// A table whose first `words` columns are text, the others numbers.
fn table(header: &[&str], words: usize, rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
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
        table.add_row(aligned(row));
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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use tokenbus_protocol::ModelInfo;

    use super::super::view::tests::{model, view, worker};
    use super::*;

    #[test]
    fn the_table_of_a_small_cluster() {
        let view = view(
            vec![worker("w1", 2, 123.4), worker("w2", 0, 0.0)],
            vec![model("qwen", Some(1250))],
        );
        let expected = "\
cluster tb: coordinator c1 leads, standing by: c2

MODEL  WORKERS  SLOTS  FREE  ACTIVE  QUEUED  WAITING  TOKENS/S   WAIT  DESIRED
qwen         1      8     6       2       0        7     100.0  1.2 s        1

WORKER  HOST  ENGINE  STATE  MODELS  SLOTS  QUEUED  TOKENS/S  TTFT P50    P99     AGE
w1      box   sim     ready  m         2/8       0       123     20 ms  1.2 s  420 ms
w2      box   sim     ready  m         0/8       0       0.0     20 ms  1.2 s  420 ms";
        assert_eq!(lines(&view).join("\n"), expected);
    }

    #[test]
    fn several_models_have_a_total_that_counts_each_worker_once() {
        let view = view(vec![], vec![model("a", None), model("b", None)]);
        let expected = "\
MODEL  WORKERS  SLOTS  FREE  ACTIVE  QUEUED  WAITING  TOKENS/S  WAIT  DESIRED
a            1      8     6       2       0        7     100.0     -        1
b            1      8     6       2       0        7     100.0     -        1
(all)        2     16    14       2       0       14       123     -        -";
        assert_eq!(models(&view.capacity).join("\n"), expected);
    }

    #[test]
    fn lost_workers_and_what_became_of_their_streams_come_last() {
        let mut view = view(vec![], vec![]);
        view.capacity.lost = vec![LostWorker {
            worker: Name::new("w3").unwrap(),
            instance: 1,
            host: "box".to_owned(),
            models: vec!["m".to_owned()],
            age_ms: 61_000,
            active: 4,
            moved: 3,
            failed: 1,
        }];
        let expected = "\
LOST WORKER  HOST  MODELS  SILENT  RAN  MOVED  FAILED
w3           box   m         61 s    4      3       1";
        assert!(lines(&view).join("\n").ends_with(expected), "{:?}", lines(&view));
    }

    #[test]
    fn without_a_coordinator_it_says_so() {
        let mut view = view(vec![], vec![]);
        view.source = Source::Workers;
        view.coordinators.clear();
        let lines = lines(&view);
        assert!(lines[0].contains("no coordinator"), "{lines:?}");
        assert!(lines.contains(&"no worker".to_owned()) && lines.contains(&"no model is served".to_owned()));
    }

    #[test]
    fn what_came_over_the_bus_cannot_steer_the_terminal() {
        let mut hostile = worker("w", 0, 0.0);
        hostile.report.host = "\u{1b}[2J\u{1b}]0;x\u{7}\r\n\u{202e}".to_owned();
        hostile.report.engine = "e".repeat(5000);
        let all = lines(&view(vec![hostile], vec![model("m\u{9b}31m", None)]));
        assert!(all.iter().all(|line| line.chars().all(is_harmless)), "{all:?}");
        assert!(all.iter().all(|line| line.chars().count() < 300));
    }

    #[test]
    fn many_models_are_counted_and_none_is_a_dash() {
        let info = |name: String| ModelInfo {
            name,
            context_length: None,
            capabilities: Default::default(),
        };
        let mut many = worker("w", 0, 0.0);
        many.report.models = (0..5).map(|n| info(format!("m{n}"))).collect();
        assert_eq!(served(&many), "m0, m1, m2 +2");
        many.report.models.clear();
        assert_eq!(served(&many), "-");
    }

    #[test]
    fn times_have_two_or_three_digits() {
        let shown: Vec<String> = [0, 999, 1000, 9_999, 10_000, 119_999, 120_000, 7_200_000, u64::MAX]
            .map(milliseconds)
            .to_vec();
        let expected = [
            "0 ms",
            "999 ms",
            "1.0 s",
            "9.9 s",
            "10 s",
            "119 s",
            "2 min",
            "2 h",
            "5124095576030 h",
        ];
        assert_eq!(shown, expected);
        assert_eq!(ttft(Quantiles::default()).0, "-");
    }
}
