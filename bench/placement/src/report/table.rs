//! Tables in Markdown.

use std::fmt::Write;

use crate::policy::Kind;
use crate::scenario::{LOADS, Recovery, Row, Study};
use crate::targets::Target;
use crate::workload::Workload;

/// A table of `rows` under `head`.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!(
        "| {} |\n|---|{}\n",
        head.join(" | "),
        "---:|".repeat(head.len().saturating_sub(1))
    );
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text.push('\n');
    text
}

/// Seconds, as short as they are exact.
pub fn short(seconds: f64) -> String {
    match seconds {
        infinite if infinite.is_infinite() => "∞".to_owned(),
        long if long >= 100.0 => format!("{long:.0}"),
        long if long >= 10.0 => format!("{long:.1}"),
        short if short >= 1.0 => format!("{short:.2}"),
        short => format!("{short:.3}"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.1}", part * 100.0)
}

fn name(policy: Kind) -> String {
    if policy == Kind::OURS {
        format!("**{}**", policy.name())
    } else {
        policy.name().to_owned()
    }
}

/// One workload: the times to the first token at every load, and the rest at 80 %.
pub fn workload(study: &Study, workload: Workload, policies: &[Kind]) -> String {
    let loads = study.loads();
    let mut head = vec!["policy".to_owned()];
    head.extend(
        loads
            .iter()
            .map(|load| format!("{:.0} %: p50 / p90 / p99, s", load * 100.0)),
    );
    head.extend(loads.iter().map(|load| format!("in time at {:.0} %", load * 100.0)));
    head.extend(["hits of best, %", "max/mean", "not ended"].map(str::to_owned));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let usual = loads
        .iter()
        .copied()
        .rfind(|load| *load <= LOADS[1])
        .or(loads.last().copied());
    let rows = policies.iter().map(|policy| {
        let policy = *policy;
        let mut cells = vec![name(policy)];
        for load in &loads {
            let [p50, p90, p99] = study.figures(workload, *load, policy).ttft.map(short);
            cells.push(format!("{p50} / {p90} / {p99}"));
        }
        cells.extend(
            loads
                .iter()
                .map(|load| percent(study.figures(workload, *load, policy).good)),
        );
        let usual = study.figures(workload, usual.unwrap_or_default(), policy);
        cells.push(percent(usual.hits_of_best));
        cells.extend([format!("{:.2}", usual.imbalance), usual.failed.to_string()]);
        cells
    });
    let capacity = study.capacity(workload);
    format!(
        "### {}\n\nCapacity: {capacity:.0} requests a second.\n\n{}",
        sentence(workload.name()),
        table(&head, rows)
    )
}

fn sentence(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

/// The fleet of uneven workers.
pub fn uneven(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let [p50, p90, p99] = row.figures.ttft.map(short);
        vec![
            name(row.policy),
            format!("{:.0}", row.figures.goodput),
            percent(row.figures.good),
            format!("{p50} / {p90} / {p99}"),
            percent(row.figures.hits_of_best),
        ]
    });
    let head = [
        "policy",
        "in time, requests/s",
        "in time, %",
        "p50 / p90 / p99, s",
        "hits of best, %",
    ];
    table(&head, cells)
}

/// What follows the loss of workers.
pub fn recovery(all: &[Recovery]) -> String {
    let cells = all.iter().map(|recovery| {
        vec![
            name(recovery.policy),
            percent(recovery.before),
            percent(recovery.lowest),
            recovery
                .seconds
                .map_or_else(|| "never".to_owned(), |seconds| seconds.to_string()),
        ]
    });
    table(
        &[
            "policy",
            "hit rate before, %",
            "lowest, %",
            "back to 90 % of it after, s",
        ],
        cells,
    )
}

/// The targets, and what came of them.
pub fn targets(targets: &[Target]) -> String {
    let cells = targets.iter().map(|target| {
        let Target {
            what,
            wanted,
            found,
            met,
        } = target;
        let verdict = if *met { "met" } else { "**missed**" };
        vec![what.clone(), wanted.clone(), found.clone(), verdict.to_owned()]
    });
    table(&["what", "target", "simulated", ""], cells)
}
