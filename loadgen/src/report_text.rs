//! The report of a run as text, for people.

use std::fmt::{Display, Formatter, Result, Write as _};

use super::report::{FailureLine, Report};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write_load(self, f)?;
        write_counts(self, f)?;
        write_latency(self, f)?;
        write_failures(self, f)?;
        write_processes(self, f)
    }
}

fn write_load(report: &Report, f: &mut Formatter<'_>) -> Result {
    let load = &report.load;
    write!(f, "{}  model {}  ", load.url, load.model)?;
    match (load.concurrency, load.rate_per_second) {
        (Some(n), _) if load.http2_connections.is_some() => write!(f, "{n} requests at a time")?,
        (Some(n), _) => write!(f, "{n} connections")?,
        (None, rate) => {
            let (rate, arrivals) = (rate.unwrap_or_default(), load.arrivals.unwrap_or_default());
            write!(f, "{rate} requests/s ({arrivals})")?;
        }
    }
    if let Some(connections) = load.http2_connections {
        write!(f, " on {connections} HTTP/2 connections")?;
    }
    let stream = if load.stream { "streamed" } else { "not streamed" };
    writeln!(f, ", {} tokens {stream}, check {}", load.max_tokens, load.check)?;
    if load.warmup_requests > 0 {
        let (requests, failed) = (load.warmup_requests, load.warmup_failed);
        writeln!(f, "warm-up    {requests} requests, {failed} failed, not counted below")?;
    }
    Ok(())
}

fn write_counts(report: &Report, f: &mut Formatter<'_>) -> Result {
    let (requests, tokens) = (&report.requests, &report.tokens);
    let stopped = if report.interrupted { ", interrupted" } else { "" };
    writeln!(f, "elapsed    {:.2} s{stopped}", report.elapsed_seconds)?;
    write!(
        f,
        "requests   {} succeeded, {} failed, ",
        requests.succeeded, requests.failed
    )?;
    if requests.cut_off > 0 {
        write!(f, "{} cut off, ", requests.cut_off)?;
    }
    writeln!(f, "{:.1}/s", requests.succeeded_per_second)?;
    let rate = tokens.received_per_second;
    writeln!(
        f,
        "tokens     {}, {rate:.0}/s, in {} arrivals",
        tokens.received, tokens.arrivals
    )
}

fn write_latency(report: &Report, f: &mut Formatter<'_>) -> Result {
    let latency = &report.latency;
    let rows = [
        ("ttft", &latency.ttft),
        ("itl", &latency.itl),
        ("tpot", &latency.tpot),
        ("total", &latency.total),
        ("late by", &latency.start_delay),
    ];
    if rows.iter().any(|(_, q)| q.is_some()) {
        writeln!(
            f,
            "{:<10} {:>12} {:>12} {:>12} {:>12}",
            "latency", "p50", "p90", "p99", "max"
        )?;
    }
    for (name, quantiles) in rows {
        if let Some(q) = quantiles {
            let [p50, p90, p99, max] = [q.p50_us, q.p90_us, q.p99_us, q.max_us].map(milliseconds);
            writeln!(f, "  {name:<8} {p50:>12} {p90:>12} {p99:>12} {max:>12}")?;
        }
    }
    Ok(())
}

fn write_failures(report: &Report, f: &mut Formatter<'_>) -> Result {
    if !report.failures.is_empty() {
        writeln!(f, "failures")?;
    }
    for FailureLine {
        kind,
        code,
        count,
        example,
    } in &report.failures
    {
        let space = if code.is_empty() { "" } else { " " };
        let example = example.replace(['\n', '\r'], " ");
        writeln!(f, "  {count:>8} × {kind}{space}{code}: {example}")?;
    }
    Ok(())
}

fn write_processes(report: &Report, f: &mut Formatter<'_>) -> Result {
    let heads = ["cpu s", "user s", "system s", "µs/token", "µs/request", "peak MiB"];
    let mut line = format!("{:<14}", "processes");
    for head in heads {
        write!(line, " {head:>10}")?;
    }
    writeln!(f, "{line}")?;
    for p in report.processes.iter().chain([&report.bench]) {
        let seconds = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
        let tenths = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
        let peak = p.peak_memory_bytes.map(|b| b as f64 / f64::from(1 << 20));
        let mut line = format!("  {:<12}", p.name);
        for cell in [
            seconds(p.cpu_seconds),
            seconds(p.cpu_user_seconds),
            seconds(p.cpu_system_seconds),
        ] {
            write!(line, " {cell:>10}")?;
        }
        for cell in [tenths(p.cpu_us_per_token), tenths(p.cpu_us_per_request), tenths(peak)] {
            write!(line, " {cell:>10}")?;
        }
        let gone = if p.ended_pids.is_empty() {
            ""
        } else {
            "  ended during the run"
        };
        writeln!(f, "{line}{gone}")?;
    }
    Ok(())
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}
