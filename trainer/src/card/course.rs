//! Owns what `report.html` shows of how a run went: speed, memory, waiting, processes, interruptions; never touches what
//! was learned.

use std::fmt::Write;

use serde_json::Value;

use super::chart::{Line, draw};
use super::html::{escaped, legend};
use super::{RunFacts, happened, number};
use crate::energy::JOULES_PER_KWH;

/// Bytes of a gibibyte.
const GIB: f64 = (1u64 << 30) as f64;

/// A curve of a chart: its name, the key of the record, and the factor to the unit that is shown.
type Curve = (&'static str, &'static str, f64);

/// The charts: title, axis, curves.
const CHARTS: [(&str, &str, &[Curve]); 4] = [
    ("Speed, target tokens a second", "tokens/s", &[("tokens/s", "tokens_per_second", 1.0)]),
    ("Share of the device's peak arithmetic, %", "%", &[("of peak", "mfu", 100.0)]),
    ("Peak memory of the process, GiB", "GiB", &[("memory", "memory_bytes", 1.0 / GIB)]),
    (
        "Time lost, % of all",
        "%",
        &[("waiting for data", "data_wait", 100.0), ("exchanging gradients", "communication", 100.0)],
    ),
];

/// Writes charts and the table of starts.
pub(super) fn write(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let mut is_first = true;
    for (title, axis, curves) in CHARTS {
        let lines: Vec<Line> = curves.iter().map(|curve| line(facts, *curve)).collect();
        // A curve of zeros (one process exchanges nothing) tells nothing.
        if lines.iter().flat_map(|line| &line.points).all(|(_, value)| *value == 0.0) {
            continue;
        }
        let chart = draw(&lines, "step", axis);
        if chart.is_empty() {
            continue;
        }
        if std::mem::take(&mut is_first) {
            writeln!(page, "<h2>How it went</h2>")?;
        }
        writeln!(page, "<h3>{title}</h3>\n{chart}")?;
        if lines.len() > 1 {
            writeln!(page, "{}", legend(&lines))?;
        }
    }
    energy(page, facts)?;
    starts(page, facts)?;
    happened::write(page, facts)
}

/// What was drawn, beside what was planned; or why nothing was measured.
fn energy(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let sum = |records: &[Value]| -> Option<f64> {
        let joules: Vec<f64> = records.iter().filter_map(|record| number(record, "energy_joules")).collect();
        (!joules.is_empty()).then(|| joules.iter().sum())
    };
    let counted = facts.event("started").and_then(|event| event.get("energy")).and_then(Value::as_str);
    let Some(counted) = counted.map(escaped) else { return Ok(()) };
    writeln!(page, "<h3>Energy</h3>")?;
    let planned = |key: &str| facts.plan.pointer(&format!("/energy/{key}")).and_then(Value::as_f64);
    let grams = planned("co2_g_per_kwh");
    let in_words = |joules: f64| {
        let kwh = joules / JOULES_PER_KWH;
        let carbon = grams.map(|grams| format!(", {:.4} kg of CO₂ at {grams} g a kWh", kwh * grams / 1e3));
        format!("{kwh:.4} kWh{}", carbon.unwrap_or_default())
    };
    let (training, evaluation) = (sum(&facts.steps), sum(&facts.evaluations));
    let tokens = facts.steps.last().and_then(|record| number(record, "tokens")).filter(|tokens| *tokens > 0.0);
    writeln!(page, "<table>")?;
    for (phase, joules) in [("training and saving", training), ("evaluation", evaluation)] {
        let Some(joules) = joules else { continue };
        writeln!(page, "<tr><th>{phase}</th><td>{}</td></tr>", in_words(joules))?;
    }
    if let Some((joules, tokens)) = training.zip(tokens) {
        writeln!(page, "<tr><th>a target token</th><td>{:.6} J</td></tr>", joules / tokens)?;
    }
    if let Some((watts, seconds)) = planned("watts").zip(seconds(facts)) {
        let text = in_words(watts * seconds);
        writeln!(page, "<tr><th>by the {watts} W of the configuration</th><td>{text} (not measured)</td></tr>")?;
    }
    writeln!(page, "<tr><th>counters</th><td>{counted}</td></tr>\n</table>")
}

/// Seconds that the run computed, over all of its starts that came to an end.
fn seconds(facts: &RunFacts) -> Option<f64> {
    let is_end = |event: &&Value| event.get("event").and_then(Value::as_str) == Some("finished");
    let all: Vec<f64> = facts.events.iter().filter(is_end).filter_map(|event| number(event, "seconds")).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}

fn line(facts: &RunFacts, (name, key, factor): Curve) -> Line {
    let point = |record: &Value| Some((number(record, "step")?, number(record, key)? * factor));
    Line { name: name.into(), points: facts.steps.iter().filter_map(point).collect() }
}

/// Every start of the run: a run that was interrupted may have gone on elsewhere.
fn starts(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let kind = |event: &&Value| event.get("event").and_then(Value::as_str) == Some("started");
    let starts: Vec<&Value> = facts.events.iter().filter(kind).collect();
    if starts.is_empty() {
        return Ok(());
    }
    let text = |value: &Value, pointer: &str| match value.pointer(pointer) {
        Some(Value::String(text)) => escaped(text),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    writeln!(page, "<h3>Starts</h3>\n<table><tr><th class=n>from step</th><th class=n>processes</th><th>engine</th>")?;
    writeln!(page, "<th>device</th><th>system</th><th>Jazari</th></tr>")?;
    for start in starts {
        let cells = ["/device", "/machine/system", "/version"].map(|pointer| text(start, pointer));
        let [device, system, version] = cells;
        writeln!(
            page,
            "<tr><td class=n>{}</td><td class=n>{}</td><td>{}</td><td>{device}</td><td>{system}</td><td>{version}</td></tr>",
            text(start, "/step"),
            text(start, "/processes"),
            text(start, "/engine")
        )?;
    }
    writeln!(page, "</table>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_measured_is_drawn_and_zeros_are_not() {
        let record = |step: u64| json!({"step": step, "tokens_per_second": 10 * step, "memory_bytes": 3u64 << 30, "data_wait": 0.0, "communication": 0.0});
        let started = json!({"event": "started", "step": 0, "processes": 2, "engine": "tcp", "device": "cpu <b>", "energy": "not measurable here: no <b>"});
        let facts = RunFacts { steps: (1..9).map(record).collect(), events: vec![started], ..RunFacts::default() };
        let mut page = String::new();
        assert!(write(&mut page, &facts).is_ok());
        assert!(
            page.contains("Speed, target tokens") && page.contains("Peak memory") && !page.contains("Time lost"),
            "{page}"
        );
        assert_eq!(page.matches("<svg").count(), 2, "{page}");
        assert!(page.contains("<h3>Energy</h3>") && page.contains("not measurable here: no &lt;b&gt;"), "{page}");
        assert!(page.contains("<td class=n>2</td><td>tcp</td><td>cpu &lt;b&gt;</td>"), "{page}");
        let measured = [
            json!({"step": 1, "energy_joules": 3.6e6, "tokens": 100}),
            json!({"step": 2, "energy_joules": 3.6e6, "tokens": 200}),
        ];
        let evaluations = vec![json!({"step": 2, "energy_joules": 1.8e6})];
        let plan = json!({"energy": {"watts": 1000.0, "co2_g_per_kwh": 500.0}});
        let events = vec![json!({"event": "started", "energy": "RAPL"}), json!({"event": "finished", "seconds": 3600})];
        let mut page = String::new();
        let facts = RunFacts { steps: measured.into(), evaluations, events, plan, ..RunFacts::default() };
        assert!(energy(&mut page, &facts).is_ok());
        for words in [
            "2.0000 kWh, 1.0000 kg of CO₂",
            "0.5000 kWh",
            "36000.000000 J",
            "by the 1000 W of the configuration</th><td>1.0000 kWh",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        let mut empty = String::new();
        assert!(write(&mut empty, &RunFacts::default()).is_ok() && empty.is_empty());
    }
}
