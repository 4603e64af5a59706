//! Tests of the tables: what is shown, at which width, and what stands out.

use tokenbus_protocol::ModelInfo;

use super::super::view::tests::{model, view, worker};
use super::*;

fn text_of(lines: &[Line]) -> String {
    plain(lines)
}

#[test]
fn a_narrow_terminal_gets_the_columns_that_matter() {
    let mut long = worker("a-long-host-name-x7k2p9", 2, 123.4);
    long.report.host = "a-long-host-name".to_owned();
    long.report.models[0].name = "qwen2.5-7b-instruct".to_owned();
    let all = view(
        vec![long],
        vec![model("a-model-with-a-very-long-name/and-more-of-it", Some(1250))],
    );
    for line in lines(&all, 80) {
        assert!(line.text.chars().count() <= 80, "{}", line.text);
    }
    let shown = text_of(&lines(&all, 80));
    assert!(
        shown.contains("STATE") && shown.contains("TOKENS/S") && !shown.contains("ENGINE"),
        "{shown}"
    );
    assert!(text_of(&lines(&all, 200)).contains("ENGINE"));
}

#[test]
fn what_is_wrong_stands_out() {
    let mut down = worker("w2", 0, 0.0);
    down.report.state = WorkerState::Unavailable;
    let mut full = model("full", None);
    full.free = 0;
    let view = view(vec![worker("w1", 0, 0.0), down], vec![full, model("m", None)]);
    let tones: Vec<Tone> = lines(&view, 80).iter().map(|line| line.tone).collect();
    let [plain, head] = [Tone::Plain, Tone::Head];
    let models = [head, Tone::Notice, plain, plain];
    let expected = [&[plain, plain][..], &models, &[plain, head, plain, Tone::Alarm]].concat();
    assert_eq!(tones, expected);
}

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
    assert_eq!(text_of(&lines(&view, usize::MAX)), expected);
}

#[test]
fn several_models_have_a_total_that_counts_each_worker_once() {
    let view = view(vec![], vec![model("a", None), model("b", None)]);
    let expected = "\
MODEL  WORKERS  SLOTS  FREE  ACTIVE  QUEUED  WAITING  TOKENS/S  WAIT  DESIRED
a            1      8     6       2       0        7     100.0     -        1
b            1      8     6       2       0        7     100.0     -        1
(all)        2     16    14       2       0       14       123     -        -";
    assert_eq!(models(&view.capacity, usize::MAX).join("\n"), expected);
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
    let shown = text_of(&lines(&view, usize::MAX));
    assert!(shown.ends_with(expected), "{shown}");
}

#[test]
fn without_a_coordinator_it_says_so() {
    let mut view = view(vec![], vec![]);
    view.source = Source::Workers;
    view.coordinators.clear();
    let shown = text_of(&lines(&view, 80));
    let first = shown.lines().next().unwrap();
    assert!(first.contains("no coordinator"), "{shown}");
    assert!(
        shown.contains("\nno worker") && shown.contains("\nno model is served"),
        "{shown}"
    );
}

#[test]
fn what_came_over_the_bus_cannot_steer_the_terminal() {
    let mut hostile = worker("w", 0, 0.0);
    hostile.report.host = "\u{1b}[2J\u{1b}]0;x\u{7}\r\n\u{202e}".to_owned();
    hostile.report.engine = "e".repeat(5000);
    let all = lines(&view(vec![hostile], vec![model("m\u{9b}31m", None)]), usize::MAX);
    assert!(all.iter().all(|line| line.text.chars().all(is_harmless)), "{all:?}");
    assert!(all.iter().all(|line| line.text.chars().count() < 300));
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
