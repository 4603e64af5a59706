//! The page of figures: what goes into docs/placement.md, and the plots beside it.

use std::fmt::Write;
use std::path::Path;

use crate::policy::Kind;
use crate::report::plot::{Line, Panel, svg};
use crate::report::table;
use crate::scenario::{Extent, LOADS, Recovery, Row, Study};
use crate::targets;
use crate::time::seconds;
use crate::workload::Workload;

/// The marks between which the page is written.
const MARKS: [&str; 2] = ["<!-- simulated:begin -->", "<!-- simulated:end -->"];

/// Everything that was found.
#[derive(Debug)]
pub struct Page {
    /// How large the simulations were.
    pub extent: Extent,
    /// Every workload at every load.
    pub study: Study,
    /// The uneven fleet.
    pub uneven: Vec<Row>,
    /// The loss of workers.
    pub recovery: Vec<Recovery>,
}

impl Page {
    /// The text.
    pub fn markdown(&self, policies: &[Kind]) -> String {
        let Extent {
            workers,
            gateways,
            warm,
            counted,
            seed,
        } = self.extent;
        let mut text = format!(
            "{workers} workers, {gateways} gateways, {:.0} s of arrivals after {:.0} s, seed {seed}.\n\n",
            seconds(counted),
            seconds(warm)
        );
        if policies.len() == Kind::ALL.len() {
            text += &table::targets(&targets::all(&self.study, &self.uneven, &self.recovery));
        }
        for workload in Workload::ALL {
            if self.study.capacity(workload) > 0.0 {
                text += &table::workload(&self.study, workload, policies);
            }
        }
        if !self.uneven.is_empty() {
            text += "### Workers of speeds 1, 2 and 4\n\nA mixed load at 80 % of the capacity.\n\n";
            text += &table::uneven(&self.uneven);
        }
        if !self.recovery.is_empty() {
            text += "### One worker in eight dies\n\n150 system prompts at 80 % of what the other workers can do.\n\n";
            text += &table::recovery(&self.recovery);
        }
        self.reasons(&mut text);
        text
    }

    fn reasons(&self, text: &mut String) {
        if self.study.cells().iter().any(|(_, _, row)| !row.reasons.is_empty()) {
            text.push_str("### Decisions by reason\n\n");
        }
        for (workload, load, row) in self.study.cells() {
            if !row.reasons.is_empty() {
                let parts: Vec<String> = row
                    .reasons
                    .iter()
                    .map(|(reason, count)| format!("{reason} {count}"))
                    .collect();
                let _ = writeln!(
                    text,
                    "- {} at {:.0} %: {}",
                    workload.name(),
                    load * 100.0,
                    parts.join(", ")
                );
            }
        }
    }

    /// Writes the text into `folder`/placement.md, and the plots into `folder`/images/.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn write(&self, folder: &Path, text: &str) -> std::io::Result<()> {
        let path = folder.join("placement.md");
        let page = std::fs::read_to_string(&path)?;
        let [begin, end] = MARKS;
        let (Some((before, _)), Some((_, after))) = (page.split_once(begin), page.split_once(end)) else {
            return Err(std::io::Error::other(format!(
                "{} lacks {begin} or {end}",
                path.display()
            )));
        };
        std::fs::write(&path, format!("{before}{begin}\n{text}{end}{after}"))?;
        let images = folder.join("images");
        std::fs::create_dir_all(&images)?;
        std::fs::write(images.join("placement-ttft.svg"), self.times())?;
        std::fs::write(images.join("placement-hits.svg"), self.hits())?;
        std::fs::write(images.join("placement-recovery.svg"), self.courses())
    }

    fn panels(&self, value: impl Fn(Workload, f64, Kind) -> f64, logarithmic: bool) -> Vec<Panel> {
        let panels = Workload::ALL.into_iter().map(|workload| Panel {
            title: workload.name().to_owned(),
            across: "load, % of the capacity".to_owned(),
            lines: Kind::ALL
                .into_iter()
                .map(|kind| Line {
                    name: kind.name().to_owned(),
                    points: LOADS
                        .iter()
                        .map(|load| (load * 100.0, value(workload, *load, kind)))
                        .collect(),
                    strong: kind == Kind::OURS,
                })
                .collect(),
            logarithmic,
        });
        panels.collect()
    }

    fn times(&self) -> String {
        let value = |workload, load, kind| self.study.figures(workload, load, kind).ttft[1];
        svg("Time to the first token, p90, in seconds", &self.panels(value, true))
    }

    fn hits(&self) -> String {
        let value = |workload, load, kind| self.study.figures(workload, load, kind).hits_of_best * 100.0;
        let mut panels = self.panels(value, false);
        panels.retain(|panel| panel.title != Workload::Unshared.name());
        svg("Cached tokens, in % of what one endless cache would have", &panels)
    }

    fn courses(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let point = |(second, rate): (usize, &[f64])| {
            let mean = rate.iter().sum::<f64>() / rate.len() as f64;
            (second as f64 - 30.0, mean * 100.0)
        };
        let lines = self.recovery.iter().map(|recovery| Line {
            name: recovery.policy.name().to_owned(),
            points: recovery.course.windows(5).enumerate().map(point).collect(),
            strong: recovery.policy == Kind::OURS,
        });
        let panel = Panel {
            title: "150 system prompts".to_owned(),
            across: "seconds after 8 of 64 workers died".to_owned(),
            lines: lines.collect(),
            logarithmic: false,
        };
        svg("Hit rate, in %, over 5 s", &[panel])
    }
}
