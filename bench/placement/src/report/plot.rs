//! Plots as SVG files.

use std::fmt::Write;

use super::table::short;

/// One line of a plot.
#[derive(Debug, Clone)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// Whether it is the one that the plot is about.
    pub strong: bool,
}

/// One panel of a plot.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// What runs from left to right.
    pub across: String,
    /// The lines.
    pub lines: Vec<Line>,
    /// Whether the values are shown by their logarithms.
    pub logarithmic: bool,
}

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 36.0;
const COLOURS: [&str; 8] = [
    "#9a9a9a", "#c7a252", "#4e79a7", "#76b7b2", "#b07aa1", "#f28e2b", "#59a14f", "#d62728",
];

struct Scale {
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64>, logarithmic: bool) -> Self {
        let finite = values.filter(|value| value.is_finite() && (!logarithmic || *value > 0.0));
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return Self {
                from: 0.0,
                to: 1.0,
                logarithmic: false,
            };
        }
        if logarithmic {
            let from = 10_f64.powf(low.log10().floor());
            let to = 10_f64.powf(high.log10().ceil()).max(from * 10.0);
            return Self { from, to, logarithmic };
        }
        let to = if high > 0.0 { high * 1.05 } else { 1.0 };
        Self {
            from: 0.0,
            to,
            logarithmic,
        }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            (value.max(self.from).log10() - self.from.log10()) / (self.to.log10() - self.from.log10())
        } else {
            (value - self.from) / (self.to - self.from)
        };
        part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let mut tick = self.from;
            let mut ticks = Vec::new();
            while tick <= self.to * 1.001 {
                ticks.push(tick);
                tick *= 10.0;
            }
            ticks
        } else {
            (0..=4)
                .map(|step| self.from + (self.to - self.from) * f64::from(step) / 4.0)
                .collect()
        }
    }
}

/// The panels side by side, three in a row, with one legend below.
pub fn svg(title: &str, panels: &[Panel]) -> String {
    let columns = panels.len().clamp(1, 3);
    let rows = panels.len().div_ceil(columns);
    #[expect(clippy::cast_precision_loss, reason = "a few panels")]
    let (columns, rows) = (columns as f64, rows as f64);
    let (width, height) = (columns * WIDTH, rows * HEIGHT + 60.0);
    let mut text = String::new();
    let _ = write!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#333\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"16\" font-size=\"13\" font-weight=\"bold\">{title}</text>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few panels")]
        let number = number as f64;
        let (x, y) = ((number % columns) * WIDTH, (number / columns).floor() * HEIGHT + 22.0);
        let _ = writeln!(text, "<g transform=\"translate({x} {y})\">");
        draw(&mut text, panel);
        text.push_str("</g>\n");
    }
    if let Some(panel) = panels.first() {
        legend(&mut text, panel, width, height);
    }
    text.push_str("</svg>\n");
    text
}

fn draw(text: &mut String, panel: &Panel) {
    let points = || panel.lines.iter().flat_map(|line| line.points.iter().copied());
    let down = Scale::of(points().map(|(_, value)| value), panel.logarithmic);
    let (first, last) = points().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (x, _)| {
        (low.min(x), high.max(x))
    });
    let across = Scale {
        from: first,
        to: if last > first { last } else { first + 1.0 },
        logarithmic: false,
    };
    let x = |value: f64| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - down.place(value) * (HEIGHT - TOP - BOTTOM);
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"16\" font-weight=\"bold\">{}</text>",
        panel.title
    );
    for tick in down.ticks() {
        let (at, label) = (y(tick), short(tick));
        let label = if label.contains('.') {
            label.trim_end_matches('0').trim_end_matches('.')
        } else {
            &label
        };
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 4.0,
            at + 4.0
        );
    }
    let mut marks: Vec<f64> = panel
        .lines
        .first()
        .map_or_else(Vec::new, |line| line.points.iter().map(|(x, _)| *x).collect());
    if marks.len() > 6 {
        let step = (across.to - across.from) / 4.0;
        marks = (0..=4)
            .map(|number| (across.from + step * f64::from(number)).round())
            .collect();
    }
    for mark in marks {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{mark}</text>",
            x(mark),
            HEIGHT - BOTTOM + 14.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        WIDTH - RIGHT,
        HEIGHT - 8.0,
        panel.across
    );
    curves(text, panel, x, y);
}

fn curves(text: &mut String, panel: &Panel, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
    for (line, colour) in panel.lines.iter().zip(COLOURS.into_iter().cycle()) {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(across, value)| format!("{:.1},{:.1}", x(*across), y(*value)))
            .collect();
        let width = if line.strong { 2.6 } else { 1.4 };
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            points.join(" ")
        );
    }
}

fn legend(text: &mut String, panel: &Panel, width: f64, height: f64) {
    let per_row = (width / 150.0).floor().max(1.0);
    for (number, (line, colour)) in panel.lines.iter().zip(COLOURS.into_iter().cycle()).enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few lines")]
        let number = number as f64;
        let x = 12.0 + (number % per_row) * 148.0;
        let y = height - 26.0 + (number / per_row).floor() * 16.0;
        let _ = writeln!(
            text,
            "<line x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            x + 16.0,
            x + 21.0,
            y + 4.0,
            line.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_lines_and_stays_within_its_frame() {
        let panel = Panel {
            title: "chat".to_owned(),
            across: "load, %".to_owned(),
            lines: vec![Line {
                name: "random".to_owned(),
                points: vec![(50.0, 0.02), (80.0, 3.0), (95.0, f64::INFINITY)],
                strong: true,
            }],
            logarithmic: true,
        };
        let text = svg("TTFT", &[panel]);
        assert!(text.contains(">random<") && text.contains(">chat<"));
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }
}
