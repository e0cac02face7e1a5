//! The picture: for each workload a bar as long as pgweir's cost over PgBouncer's, which is the line at 1.00. The forwarder is a mark on
//! the bar's row. Written by hand, readable on light and on dark ground.

use std::fmt::Write;

use super::goals::headline;
use super::results::{Outcome, Results};
use crate::workload::measure::RESIDENT_BYTES;

const LABEL_WIDTH: f64 = 210.0;
const BAR_AREA: f64 = 430.0;
const WIDTH: f64 = LABEL_WIDTH + BAR_AREA + 70.0;
const ROW: f64 = 20.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 34.0;
/// What the bars' room ends at; a longer bar is cut, its number tells.
const RATIO_MAX: f64 = 1.3;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.t{font-size:15px;font-weight:600}.n{font-size:11px;fill:#59636e}\
.b{fill:#2f81c4}.w{fill:#c4602f}.f{stroke:#7d8590;stroke-width:2}.l{stroke:#1f2328;stroke-width:1.5}.g{stroke:#d1d9e0;stroke-width:1}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.n{fill:#9198a1}.l{stroke:#e6edf3}.g{stroke:#3d444d}.b{fill:#4a9fe0}.w{fill:#e07f4a}}";

/// One row: what it is, pgweir's ratio, the forwarder's.
struct Bar {
    label: String,
    ratio: f64,
    forwarder: Option<f64>,
}

/// The whole file. Workloads without both poolers are not in it.
pub fn picture(results: &Results) -> String {
    let bars: Vec<_> = results.workloads.iter().filter_map(bar).collect();
    let height = TOP + ROW * bars.len() as f64 + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>What pgweir costs, PgBouncer being 1.00</title>\n<style>{STYLE}</style>\n\
         <text class=\"t\" x=\"8\" y=\"20\">What pgweir costs where PgBouncer costs 1.00</text>\n\
         <text class=\"n\" x=\"8\" y=\"37\">CPU of the pooler per transaction, MB or login; memory per idle client. Shorter is cheaper.</text>\n"
    );
    let foot = height - BOTTOM;
    for step in [0.0, 0.25, 0.5, 0.75, 1.0, 1.25] {
        let (x, class) = (at(step), if step == 1.0 { "l" } else { "g" });
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{foot:.1}\"/>",
            TOP - 8.0
        );
        let _ = writeln!(
            svg,
            "<text class=\"n\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{step}</text>",
            foot + 14.0
        );
    }
    for (row, bar) in bars.iter().enumerate() {
        bar.draw(TOP + ROW * row as f64, &mut svg);
    }
    let machine = &results.machine;
    let _ = writeln!(
        svg,
        "<text class=\"n\" x=\"8\" y=\"{:.1}\">{}</text>\n</svg>",
        height - 5.0,
        escaped(&format!(
            "{}, {} cores, {}. Grey mark: a forwarder that reads nothing.",
            machine.processor, machine.cores, machine.date
        ))
    );
    svg
}

fn bar(outcome: &Outcome) -> Option<Bar> {
    let measure = headline(outcome)?;
    let label = if measure == RESIDENT_BYTES {
        format!("{} (memory)", outcome.name)
    } else {
        outcome.name.clone()
    };
    Some(Bar {
        label,
        ratio: outcome.ratio(measure, "pgweir", "pgbouncer")?,
        forwarder: outcome.ratio(measure, "forwarder", "pgbouncer"),
    })
}

impl Bar {
    fn draw(&self, y: f64, svg: &mut String) {
        let (start, end) = (at(0.0), at(self.ratio));
        let class = if self.ratio > 1.0 { "w" } else { "b" };
        let _ = writeln!(
            svg,
            "<text text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            start - 8.0,
            y + 11.0,
            escaped(&self.label)
        );
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{start:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"13\" rx=\"2\"/>",
            end - start
        );
        if let Some(forwarder) = self.forwarder {
            let x = at(forwarder);
            let _ = writeln!(
                svg,
                "<line class=\"f\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>",
                y - 2.0,
                y + 15.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
            WIDTH - 40.0,
            y + 11.0,
            self.ratio
        );
    }
}

fn at(ratio: f64) -> f64 {
    LABEL_WIDTH + ratio.clamp(0.0, RATIO_MAX) / RATIO_MAX * BAR_AREA
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::machine::Machine;
    use super::super::results::tests::outcome;
    use super::*;
    use crate::workload::measure::CPU_US;

    /// Every tag that is opened is closed, in order, and text holds no bare `<` or `&`.
    fn well_formed(svg: &str) -> bool {
        let mut open = Vec::new();
        for part in svg.split('<').skip(1) {
            let Some((tag, text)) = part.split_once('>') else {
                return false;
            };
            let name = tag
                .trim_matches('/')
                .split_ascii_whitespace()
                .next()
                .unwrap_or("");
            if text
                .replace("&amp;", "")
                .replace("&lt;", "")
                .replace("&gt;", "")
                .contains('&')
            {
                return false;
            }
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) if open.pop() != Some(name) => return false,
                (false, false) => open.push(name),
                _ => {}
            }
        }
        open.is_empty()
    }

    #[test]
    fn the_picture_is_well_formed_and_tells_the_ratios() {
        let peers: &[(&str, &[f64])] = &[
            ("pgweir", &[7.5]),
            ("pgbouncer", &[10.0]),
            ("forwarder", &[8.0]),
        ];
        let workloads = vec![
            outcome("a<b&c", CPU_US, peers),
            outcome("alone", CPU_US, &peers[..1]),
        ];
        let machine = Machine {
            processor: "A & B <C>".into(),
            ..Machine::default()
        };
        let svg = picture(&Results {
            machine,
            command: String::new(),
            workloads,
        });
        assert!(well_formed(&svg), "{svg}");
        assert!(
            svg.contains(">0.75<") && svg.contains("a&lt;b&amp;c") && !svg.contains("alone"),
            "{svg}"
        );
    }
}
