//! `placement-bench`: simulates the placement of requests and writes what it found.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use tokenbus_placement_bench::policy::Kind;
use tokenbus_placement_bench::scenario::{Extent, LOADS};
use tokenbus_placement_bench::time::SECOND;
use tokenbus_placement_bench::workload::Workload;
use tokenbus_placement_bench::{page, scenario};

/// Simulates the placement of requests on workers, in virtual time, beside other policies.
#[derive(Debug, Parser)]
struct Options {
    /// Workers.
    #[arg(long, default_value_t = 64)]
    workers: usize,
    /// Gateways.
    #[arg(long, default_value_t = 8)]
    gateways: usize,
    /// Seconds in which arrivals are counted.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Seconds before anything is counted.
    #[arg(long, default_value_t = 60)]
    warm: u64,
    /// The seed of everything that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this: agents, groups, chat, giant, unshared, uneven or recovery. Repeat it for several.
    #[arg(long)]
    only: Vec<String>,
    /// Only these loads, in percent of the capacity.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<f64>,
    /// Only policies whose name contains this.
    #[arg(long)]
    policy: Vec<String>,
    /// The folder of the documentation: the tables go into its placement.md, the plots into images/.
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let extent = Extent {
        workers: options.workers.clamp(1, 128),
        gateways: options.gateways.max(1),
        warm: options.warm * SECOND,
        counted: options.seconds.max(45) * SECOND,
        seed: options.seed,
    };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let workloads: Vec<Workload> = Workload::ALL
        .into_iter()
        .filter(|workload| wanted(workload.key()))
        .collect();
    let loads: Vec<f64> = if options.loads.is_empty() {
        LOADS.to_vec()
    } else {
        options.loads.iter().map(|load| load / 100.0).collect()
    };
    let chosen =
        |kind: &Kind| options.policy.is_empty() || options.policy.iter().any(|part| kind.name().contains(part));
    let policies: Vec<Kind> = Kind::ALL.into_iter().filter(chosen).collect();
    let say = |what: &str| {
        let _ = writeln!(std::io::stderr(), "{what}");
    };
    let study = scenario::study(extent, &workloads, &loads, &policies, say);
    let uneven = if wanted("uneven") {
        scenario::uneven(extent, &policies)
    } else {
        Vec::new()
    };
    let recovery = if wanted("recovery") {
        scenario::recovery(extent, Workload::Groups, &policies)
    } else {
        Vec::new()
    };
    let page = page::Page {
        extent,
        study,
        uneven,
        recovery,
    };
    let text = page.markdown(&policies);
    std::io::stdout().write_all(text.as_bytes())?;
    match options.write {
        Some(folder) => page.write(&folder, &text),
        None => Ok(()),
    }
}
