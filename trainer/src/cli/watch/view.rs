//! Owns how a watched run looks: on a terminal and as plain lines; never reads a file.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart as Plot, Dataset, Gauge, GraphType, List, Paragraph, Row, Table};
use serde_json::Value;

use super::super::progress::{short, thousands};
use super::course::{Course, Curve};
use crate::card::number;

/// Points that are drawn of a curve at most.
const MOST_POINTS: usize = 2_000;
/// Bytes of a gibibyte.
const GIB: f64 = (1u64 << 30) as f64;
/// Colours of curves.
const COLOURS: [Color; 3] = [Color::Cyan, Color::Yellow, Color::Magenta];

/// What the chart shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Chart {
    /// Training loss and bits per byte.
    #[default]
    Loss,
    /// Target tokens a second.
    Speed,
    /// Peak memory.
    Memory,
    /// Shares of time lost.
    Waiting,
    /// Learning rate.
    LearningRate,
}

impl Chart {
    const ALL: [Self; 5] = [Self::Loss, Self::Speed, Self::Memory, Self::Waiting, Self::LearningRate];

    /// The next one.
    pub(super) fn next(self) -> Self {
        self.shifted(1)
    }

    /// The one before.
    pub(super) fn before(self) -> Self {
        self.shifted(Self::ALL.len() - 1)
    }

    fn shifted(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|chart| *chart == self).unwrap_or(0);
        *Self::ALL.iter().cycle().nth(at + by).unwrap_or(&self)
    }

    /// Title and curves with their names.
    fn content(self, course: &Course) -> (&'static str, Vec<(&'static str, Curve)>) {
        let curve = |key: &str, factor: f64| {
            let points = course.curves.get(key).into_iter().flatten();
            thinned(points.map(|(step, value)| (*step, value * factor)).collect())
        };
        match self {
            Self::Loss => (
                "loss, nats a token; bits a byte",
                vec![("loss", curve("loss", 1.0)), ("bits/byte", thinned(course.bits_per_byte.clone()))],
            ),
            Self::Speed => ("speed, target tokens a second", vec![("tokens/s", curve("tokens_per_second", 1.0))]),
            Self::Memory => ("peak memory, GiB", vec![("memory", curve("memory_bytes", 1.0 / GIB))]),
            Self::Waiting => (
                "time lost, %",
                vec![("data", curve("data_wait", 100.0)), ("communication", curve("communication", 100.0))],
            ),
            Self::LearningRate => ("learning rate", vec![("rate", curve("lr", 1.0))]),
        }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, course: &Course, chart: Chart) {
    let [head, gauge, middle, below, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(1),
        Constraint::Min(8),
        Constraint::Length(12),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [languages, events] = Layout::horizontal([Constraint::Length(44), Constraint::Min(10)]).areas(below);
    let lines: Vec<Line<'_>> = figures(course).into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines), head);
    frame.render_widget(progress(course), gauge);
    plot(frame, middle, course, chart);
    frame.render_widget(scores(course), languages);
    let newest: Vec<String> = course.events.iter().rev().cloned().collect();
    let dim = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(List::new(newest).block(Block::bordered().title(" events, newest first ")), events);
    frame.render_widget(Line::from(" tab: next chart   q: leave (the run goes on)").style(dim), foot);
}

/// The figures in three lines.
fn figures(course: &Course) -> Vec<String> {
    let last = |key: &str| number(&course.last, key);
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let started = |key: &str| course.started.get(key).and_then(Value::as_str).unwrap_or("-");
    let processes = number(&course.started, "processes").unwrap_or(1.0);
    vec![
        format!(
            " {}: {}   plan {}   {} x {}",
            course.root.display(),
            course.state(),
            course.plan.as_deref().map_or("-", short),
            processes,
            started("device"),
        ),
        format!(
            " loss {}   bits/byte {}   rate {}   gradient norm {}",
            or_dash(last("loss").map(|v| format!("{v:.4}"))),
            or_dash(course.bits_per_byte.last().map(|(_, v)| format!("{v:.4}"))),
            or_dash(last("lr").map(|v| format!("{v:.2e}"))),
            or_dash(last("grad_norm").map(|v| format!("{v:.3}"))),
        ),
        format!(
            " {} tokens   {} tokens/s   {} of peak   {} GiB   data wait {}   {}",
            or_dash(last("tokens").map(thousands)),
            or_dash(last("tokens_per_second").map(thousands)),
            or_dash(last("mfu").map(|v| format!("{:.1}%", v * 100.0))),
            or_dash(last("memory_bytes").map(|v| format!("{:.2}", v / GIB))),
            or_dash(last("data_wait").map(|v| format!("{:.1}%", v * 100.0))),
            started("energy"),
        ),
    ]
}

/// How far it is, in words.
fn position(course: &Course) -> String {
    let all = course.max_steps.map_or_else(|| "?".to_owned(), |all| all.to_string());
    let left = course.seconds_left().map(|seconds| format!(", {} left", duration(seconds))).unwrap_or_default();
    format!("step {} of {all}{left}", course.step())
}

fn progress(course: &Course) -> Gauge<'static> {
    let ratio = course.max_steps.filter(|all| *all > 0.0).map_or(0.0, |all| course.step() / all).clamp(0.0, 1.0);
    Gauge::default().ratio(ratio).label(position(course)).gauge_style(Style::new().fg(Color::Green))
}

fn plot(frame: &mut Frame<'_>, area: Rect, course: &Course, chart: Chart) {
    let (title, curves) = chart.content(course);
    let points = || curves.iter().flat_map(|(_, points)| points);
    let (mut low, mut high) = points().fold((f64::MAX, f64::MIN), |(low, high), (_, v)| (low.min(*v), high.max(*v)));
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    if high - low < 1e-9 * high.abs().max(1e-9) {
        // A level line lies in the middle.
        let room = high.abs().max(1e-9) * 0.05;
        (low, high) = (low - room, high + room);
    }
    let first = points().map(|(step, _)| *step).fold(f64::MAX, f64::min).min(course.step());
    let last = course.step().max(first + 1.0);
    let sets = curves.iter().zip(COLOURS).map(|((name, points), colour)| {
        let set = Dataset::default().name(*name).data(points).marker(Marker::Braille).graph_type(GraphType::Line);
        set.style(Style::new().fg(colour))
    });
    let label =
        |value: f64| if value.abs() < 0.01 && value != 0.0 { format!("{value:.1e}") } else { format!("{value:.3}") };
    let plot = Plot::new(sets.collect())
        .block(Block::bordered().title(format!(" {title} ")))
        .x_axis(Axis::default().bounds([first, last]).labels([format!("{first:.0}"), format!("step {last:.0}")]))
        .y_axis(Axis::default().bounds([low, high]).labels([label(low), label((low + high) / 2.0), label(high)]));
    frame.render_widget(plot, area);
}

/// Scores by language, the worst change first.
fn scores(course: &Course) -> Table<'static> {
    let mut rows: Vec<(&String, f64, f64)> =
        course.languages.iter().map(|(language, (first, now))| (language, *first, *now)).collect();
    rows.sort_by(|(_, a, b), (_, c, d)| (d - c).total_cmp(&(b - a)));
    let rows = rows.into_iter().map(|(language, first, now)| {
        let row =
            Row::new([language.clone(), format!("{first:.3}"), format!("{now:.3}"), format!("{:+.3}", now - first)]);
        // What gets worse is to be seen.
        if now > first { row.style(Style::new().fg(Color::Red)) } else { row }
    });
    let widths = [Constraint::Min(16), Constraint::Length(7), Constraint::Length(7), Constraint::Length(8)];
    let head = Row::new(["language", "first", "now", "change"]).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths).header(head).block(Block::bordered().title(" bits a byte "))
}

/// The state as lines of text.
pub(super) fn plain(course: &Course) -> Vec<String> {
    let mut lines: Vec<String> = figures(course).iter().map(|line| line.trim().to_owned()).collect();
    lines.insert(1, position(course));
    for (language, (first, now)) in &course.languages {
        lines.push(format!("{language}: {first:.4} -> {now:.4} bits a byte"));
    }
    lines.extend(course.events.iter().rev().take(5).map(|event| format!("event: {event}")));
    lines
}

/// Every n-th point, the last one always.
fn thinned(points: Curve) -> Curve {
    let stride = points.len().div_ceil(MOST_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points.into_iter().enumerate().filter(|(i, _)| i % stride == 0 || *i == last).map(|(_, point)| point).collect()
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5_400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn course() -> Course {
        let mut course = Course::new("runs/darija".into());
        (course.max_steps, course.plan) = (Some(200.0), Some("0123456789abcdef".into()));
        course.is_running = true;
        course.curves.insert("loss", (1..=100).map(|step| (f64::from(step), 8.0 - f64::from(step) / 20.0)).collect());
        course.bits_per_byte = vec![(0.0, 4.0), (100.0, 2.5)];
        course.languages.insert("ary_Arab".into(), (4.0, 2.25));
        course.languages.insert("zgh_Tfng".into(), (3.0, 3.5));
        course.last = json!({"step": 100, "loss": 3.0, "tokens": 204800, "tokens_per_second": 3500.4, "memory_bytes": 1u64 << 30});
        course.started = json!({"processes": 2, "device": "cpu (2 threads)", "energy": "not measurable here"});
        course.events = ["step 100: saved, 1.5 MB in 0.2 s".to_owned()].into();
        course
    }

    fn screen(course: &Course, chart: Chart, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, course, chart)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_screen_shows_figures_curves_languages_and_events() {
        let text = screen(&course(), Chart::Loss, 110, 34);
        for words in [
            "runs/darija: running   plan 0123456789ab   2 x cpu (2 threads)",
            "loss 3.0000   bits/byte 2.5000",
            "step 100 of 200",
            "loss, nats a token; bits a byte",
            "ary_Arab",
            "-1.750",
            "+0.500",
            "step 100: saved, 1.5 MB",
            "7.950",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        // The language that got worse stands first, and curves are drawn.
        assert!(text.find("zgh_Tfng") < text.find("ary_Arab"), "{text}");
        assert!(text.chars().filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count() > 50, "{text}");
    }

    #[test]
    fn nothing_known_and_no_room_are_no_reason_to_fail() {
        for chart in Chart::ALL {
            for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
                screen(&Course::default(), chart, width, height);
                screen(&course(), chart, width, height);
            }
        }
        let lines = plain(&course());
        assert_eq!(lines[1], "step 100 of 200");
        assert!(lines.contains(&"zgh_Tfng: 3.0000 -> 3.5000 bits a byte".to_owned()), "{lines:?}");
    }

    #[test]
    fn charts_go_round_and_long_curves_keep_their_end() {
        assert_eq!(Chart::ALL.iter().fold(Chart::Loss, |chart, _| chart.next()), Chart::Loss);
        assert_eq!(Chart::Loss.before().next(), Chart::Loss);
        let long = thinned((0..9_999).map(|step| (f64::from(step), 0.0)).collect());
        assert!(long.len() <= MOST_POINTS + 1 && long.last() == Some(&(9_998.0, 0.0)));
        assert_eq!([59.0, 600.0, 7_200.0, 260_000.0].map(duration), ["59 s", "10 min", "2.0 h", "3.0 days"]);
    }
}
