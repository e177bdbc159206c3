//! Owns line charts as inline SVG; never knows what is drawn.

use std::fmt::Write;

/// Points of a line that are drawn at most; more are averaged, as a screen shows no more.
const MAX_POINTS: usize = 400;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 12.0;

/// Colours that stay apart for most eyes (Okabe and Ito, "Color Universal Design", 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"];

/// How the lines are broken that share a colour: the first seven not at all.
const DASHES: [&str; 3] = ["", " stroke-dasharray=\"7 3\"", " stroke-dasharray=\"2 3\""];

/// Attributes of the line of this number: no two of the first 21 look alike.
fn stroke(number: usize) -> String {
    let colour = COLOURS.get(number % COLOURS.len()).copied().unwrap_or_default();
    let dash = DASHES.get(number / COLOURS.len() % DASHES.len()).copied().unwrap_or_default();
    format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dash}")
}

/// What the legend shows of the line of this number.
pub fn key(number: usize) -> String {
    format!(
        "<svg class=\"key\" viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path d=\"M0 4H24\" {}/></svg>",
        stroke(number)
    )
}

/// A line with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Points, x rising; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Draws lines over a common x axis; empty text when there is nothing to draw.
pub fn draw(lines: &[Line], x_name: &str, y_name: &str) -> String {
    let lines: Vec<Line> = lines.iter().map(thinned).filter(|line| !line.points.is_empty()).collect();
    let all = || lines.iter().flat_map(|line| &line.points);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let ((x_low, x_high), (y_low, y_high)) = (bounds(|p| p.0), bounds(|p| p.1));
    if lines.is_empty() {
        return String::new();
    }
    let (x_ticks, y_ticks) = (ticks(x_low, x_high), ticks(y_low, y_high));
    let y_low = y_ticks.first().copied().unwrap_or(y_low).min(y_low);
    let y_high = y_ticks.last().copied().unwrap_or(y_high).max(y_high);
    let part = |value: f64, low: f64, high: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * part(value, x_low, x_high);
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * part(value, y_low, y_high);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y_name} by {x_name}\">");
    // Writing to a String cannot fail.
    for tick in &y_ticks {
        let (at, right) = (y(*tick), WIDTH - RIGHT);
        _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>");
        _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, at + 4.0, label(*tick));
    }
    for tick in x_ticks.iter().filter(|tick| (x_low..=x_high).contains(*tick)) {
        let (at, low) = (x(*tick), HEIGHT - BOTTOM + 16.0);
        _ = write!(svg, "<text x=\"{at:.1}\" y=\"{low}\" text-anchor=\"middle\">{}</text>", label(*tick));
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    _ = write!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x_name}</text>", HEIGHT - 3.0);
    for (number, line) in lines.iter().enumerate() {
        let points: Vec<String> = line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        _ = write!(svg, "<polyline {} points=\"{}\"/>", stroke(number), points.join(" "));
    }
    svg.push_str("</svg>");
    svg
}

/// The finite points, averaged in stretches when there are too many.
fn thinned(line: &Line) -> Line {
    let points: Vec<(f64, f64)> = line.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
    let stretch = points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum_x / points.len() as f64, sum_y / points.len() as f64)
    };
    let points = if stretch == 1 { points } else { points.chunks(stretch).map(mean).collect() };
    Line { name: line.name.clone(), points }
}

/// Round numbers that cover a range: 1, 2 or 5 times a power of ten apart, about five of them.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = if high > low { high - low } else { high.abs().max(1.0) };
    let rough = span / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
    let (first, last) = ((low / step).floor(), (high / step).ceil());
    let count = (last - first).clamp(0.0, 20.0) as usize;
    (0..=count).map(|i| (first + i as f64) * step).collect()
}

fn label(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.1} M", value / 1e6),
        v if v >= 10.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: Vec<(f64, f64)>) -> Line {
        Line { name: "a".into(), points }
    }

    #[test]
    fn lines_stay_inside_the_picture() {
        let points: Vec<(f64, f64)> = (0..5_000).map(|i| (f64::from(i), 9.0 - f64::from(i) / 1000.0)).collect();
        let svg = draw(&[line(points)], "step", "loss");
        let drawn = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let points: Vec<(f64, f64)> = drawn
            .split(' ')
            .filter_map(|p| p.split_once(','))
            .filter_map(|(x, y)| Some((x.parse().ok()?, y.parse().ok()?)))
            .collect();
        assert!(points.len() > 300 && points.len() <= MAX_POINTS, "{}", points.len());
        assert!(points.iter().all(|p| (LEFT..=WIDTH).contains(&p.0) && (TOP..=HEIGHT - BOTTOM).contains(&p.1)));
    }

    #[test]
    fn nothing_one_point_and_no_numbers_are_drawn_without_harm() {
        assert_eq!(draw(&[], "x", "y"), "");
        assert_eq!(draw(&[line(vec![(f64::NAN, 1.0), (1.0, f64::INFINITY)])], "x", "y"), "");
        let svg = draw(&[line(vec![(3.0, 2.0)])], "x", "y");
        assert!(svg.contains("<polyline") && !svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn no_two_of_many_lines_look_alike() {
        let many: std::collections::BTreeSet<String> = (0..21).map(stroke).collect();
        assert_eq!(many.len(), 21);
        let lines: Vec<Line> = (0..9).map(|i| line(vec![(0.0, f64::from(i)), (1.0, f64::from(i))])).collect();
        let svg = draw(&lines, "x", "y");
        assert!((0..9).all(|number| svg.contains(&stroke(number)) && key(number).contains(&stroke(number))), "{svg}");
    }

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(ticks(0.0, 100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let t = ticks(1.93, 7.4);
        assert!(t.first().is_some_and(|low| *low <= 1.93) && t.last().is_some_and(|high| *high >= 7.4));
        assert_eq!(ticks(5.0, 5.0).len(), 1);
    }
}
