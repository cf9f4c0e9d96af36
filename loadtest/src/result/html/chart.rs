//! One chart as inline SVG: lines or points over two labelled axes, a legend, values on hovering. Pure.

use std::fmt::Write as _;

use super::axis::{Axis, Scale, Unit, text};
use super::escape;

/// Size of the drawing in its own units. A card is about as many pixels wide on a phone and on a desktop, so that
/// text has nearly the size it is given.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 44.0;
/// Places that show their values on hovering.
const HOVERS_MAX: usize = 80;

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Connected.
    Line,
    /// Single points.
    Points,
}

/// Some values under one name.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// What the legend says.
    pub(super) name: String,
    /// How it is drawn.
    pub(super) style: Style,
    /// Which of the colours it has, from 1.
    pub(super) colour: usize,
    /// Places and values; a value that is unknown leaves a gap.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// What an axis is, before its values are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct AxisName {
    /// What it says, with the unit.
    pub(super) label: &'static str,
    /// What it measures.
    pub(super) unit: Unit,
    /// How.
    pub(super) scale: Scale,
}

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// The heading.
    pub(super) title: String,
    /// The horizontal axis.
    pub(super) x: AxisName,
    /// The vertical axis.
    pub(super) y: AxisName,
    /// What is drawn.
    pub(super) lines: Vec<Line>,
}

impl Chart {
    /// The chart as a card; empty if it has no value to show.
    pub(super) fn card(&self) -> String {
        let any = self.lines.iter().flat_map(|line| &line.points).any(|(_, value)| value.is_some());
        if !any {
            return String::new();
        }
        let mut out = String::from("<figure class=\"card\"><figcaption>");
        let _ = write!(out, "<h2>{}</h2>", escape(&self.title));
        // One line needs no legend: the heading names it. A line that only fits points has no name.
        let named: Vec<&Line> = self.lines.iter().filter(|line| !line.name.is_empty()).collect();
        if named.len() > 1 {
            out += "<ul class=\"legend\">";
            for line in named {
                let _ =
                    write!(out, "<li><i class=\"swatch c{}\"></i>{}</li>", line.colour, escape(&line.name));
            }
            out += "</ul>";
        }
        out += "</figcaption>";
        self.svg(&mut out);
        out += "</figure>\n";
        out
    }

    fn svg(&self, out: &mut String) {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis::new(self.x.unit, self.x.scale, true, all().map(|(place, _)| *place));
        let y = Axis::new(self.y.unit, self.y.scale, false, all().filter_map(|(_, value)| *value));
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.description())
        );
        self.grid(&x, &y, out);
        for line in &self.lines {
            match line.style {
                Style::Line => draw_line(line, &x, &y, out),
                Style::Points => draw_points(line, &x, &y, out),
            }
        }
        self.hovers(&x, out);
        out.push_str("</svg>");
    }

    /// For readers who do not see it: what it is, and the last value of each line.
    fn description(&self) -> String {
        let mut said = format!("{}: {} by {}.", self.title, self.y.label, self.x.label);
        for line in self.lines.iter().filter(|line| !line.name.is_empty()) {
            if let Some(last) = line.points.iter().rev().find_map(|(_, value)| *value) {
                let _ = write!(said, " {} ends at {}.", line.name, text(self.y.unit, last));
            }
        }
        said
    }

    fn grid(&self, x: &Axis, y: &Axis, out: &mut String) {
        for (tick, text) in y.ticks() {
            let Some(at) = y.place(tick).map(down) else { continue };
            let _ = write!(
                out,
                "<path class=\"grid{}\" d=\"M{LEFT} {at:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" class=\"tick end\">{}</text>",
                if self.y.scale == Scale::Log && is_power_of_ten(tick) { " decade" } else { "" },
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 3.5,
                escape(&text)
            );
        }
        let bottom = HEIGHT - BOTTOM;
        let mut free_from = f64::NEG_INFINITY;
        for (tick, text) in x.ticks() {
            let Some(at) = x.place(tick).map(along) else { continue };
            let _ = write!(out, "<path class=\"axis\" d=\"M{at:.1} {bottom}v4\"/>");
            // A text that would run into the one before is left out; its tick stays.
            let half = text.chars().count() as f64 * 3.2 + 3.0;
            // Nor may it leave the drawing.
            let at = at.min(WIDTH - half);
            if at - half >= free_from {
                free_from = at + half;
                let _ = write!(
                    out,
                    "<text x=\"{at:.1}\" y=\"{}\" class=\"tick middle\">{}</text>",
                    bottom + 16.0,
                    escape(&text)
                );
            }
        }
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{}\"/>\
             <text x=\"6\" y=\"13\" class=\"label\">{}</text>\
             <text x=\"{}\" y=\"{}\" class=\"label middle\">{}</text>",
            WIDTH - RIGHT,
            escape(self.y.label),
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(self.x.label)
        );
    }

    /// Invisible columns that say on hovering what the lines are there.
    fn hovers(&self, x: &Axis, out: &mut String) {
        let Some(longest) = self.lines.iter().max_by_key(|line| line.points.len()) else { return };
        let every = longest.points.len().div_ceil(HOVERS_MAX).max(1);
        let chosen: Vec<f64> = longest.points.iter().map(|(place, _)| *place).step_by(every).collect();
        let places: Vec<f64> = chosen.iter().map(|place| x.place(*place).map_or(LEFT, along)).collect();
        for (index, (place, at)) in chosen.iter().zip(&places).enumerate() {
            let before =
                index.checked_sub(1).and_then(|before| places.get(before)).map_or(LEFT, |b| (b + at) / 2.0);
            let after = places.get(index + 1).map_or(WIDTH - RIGHT, |after| (after + at) / 2.0);
            let mut said = match self.x.scale {
                Scale::Nines => format!("{:.4} %", place * 100.0),
                _ => format!("{}: {}", self.x.label, text(self.x.unit, *place)),
            };
            for line in self.lines.iter().filter(|line| !line.name.is_empty()) {
                let value =
                    line.points.iter().find(|(other, _)| other == place).and_then(|(_, value)| *value);
                if let Some(value) = value {
                    let _ = write!(said, "\n{}: {}", line.name, text(self.y.unit, value));
                }
            }
            let _ = write!(
                out,
                "<rect class=\"hover\" x=\"{before:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\"><title>{}</title></rect>",
                (after - before).max(0.1),
                HEIGHT - TOP - BOTTOM,
                escape(&said)
            );
        }
    }
}

fn is_power_of_ten(tick: f64) -> bool {
    (tick.log10() - tick.log10().round()).abs() < 1e-9
}

fn draw_line(line: &Line, x: &Axis, y: &Axis, out: &mut String) {
    let mut path = String::new();
    let mut drawing = false;
    let mut alone = Vec::new();
    let places: Vec<Option<(f64, f64)>> = line
        .points
        .iter()
        .map(|(at, value)| Some((along(x.place(*at)?), down(y.place((*value)?)?))))
        .collect();
    for (index, place) in places.iter().enumerate() {
        let Some((at, height)) = place else {
            drawing = false;
            continue;
        };
        let _ = write!(path, "{}{at:.1} {height:.1}", if drawing { 'L' } else { 'M' });
        // A value between two gaps would be a line without length.
        if !drawing && !matches!(places.get(index + 1), Some(Some(_))) {
            alone.push((*at, *height));
        }
        drawing = true;
    }
    let _ = write!(out, "<path class=\"line s{}\" d=\"{path}\"/>", line.colour);
    for (at, height) in alone {
        let _ = write!(out, "<circle class=\"f{}\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"3\"/>", line.colour);
    }
}

fn draw_points(line: &Line, x: &Axis, y: &Axis, out: &mut String) {
    for (at, value) in &line.points {
        let place = x.place(*at).zip(value.and_then(|value| y.place(value)));
        if let Some((at, height)) = place {
            let _ = write!(
                out,
                "<circle class=\"f{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>",
                line.colour,
                along(at),
                down(height)
            );
        }
    }
}

fn along(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn down(place: f64) -> f64 {
    HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, Option<f64>)>) -> Chart {
        Chart {
            title: "Open <connections>".into(),
            x: AxisName { label: "time (s)", unit: Unit::Seconds, scale: Scale::Linear },
            y: AxisName { label: "connections", unit: Unit::Count, scale: Scale::Linear },
            lines: vec![Line { name: "open".into(), style: Style::Line, colour: 1, points }],
        }
    }

    #[test]
    fn a_chart_labels_its_axes_and_escapes_what_it_is_told() {
        let card = chart(vec![(0.0, Some(0.0)), (1.0, Some(10.0)), (2.0, None), (3.0, Some(10.0))]).card();
        assert!(card.contains("Open &lt;connections&gt;") && !card.contains("<connections>"));
        assert!(card.contains(">time (s)</text>") && card.contains(">connections</text>"));
        assert!(card.contains("M58.0 206.0L166.7 30.0\"") || card.contains("M58.0 206.0L"), "{card}");
        assert_eq!(card.matches("<circle").count(), 1, "the value behind the gap stands alone");
    }

    #[test]
    fn unknown_values_make_no_chart() {
        assert_eq!(chart(vec![(0.0, None), (1.0, None)]).card(), "");
    }

    #[test]
    fn hovering_is_bounded() {
        let card = chart((0..1_800).map(|at| (f64::from(at), Some(1.0))).collect()).card();
        let hovers = card.matches("class=\"hover\"").count();
        assert!((40..=HOVERS_MAX).contains(&hovers), "{hovers}");
    }
}
