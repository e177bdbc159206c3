//! Owns `report.html` of a run directory: one page without scripts and without anything from the net; never reads a
//! checkpoint.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::chart::{Line, draw, key};
use super::{RunFacts, course, number, schedule};
use crate::durable::{self, FileError};

/// File name inside a run directory.
pub const FILE: &str = "report.html";

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}\
td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}td.n,th.n{text-align:right}\
th{border-bottom:1px solid #bbb;font-weight:600}svg{width:100%;height:auto}svg text{font-size:11px;fill:#555}\
.grid{stroke:#e4e4e4}svg.key{width:24px;height:8px;margin-right:.4em}.legend span{display:inline-block;margin-right:1.2em;white-space:nowrap}\
pre{background:#f6f6f6;padding:.8em;overflow:auto;font-size:12.5px}.warn{color:#a33}";

/// Writes the page of a run directory anew from what lies in it.
///
/// # Errors
/// When the disk refuses.
pub fn write_report(root: &Path) -> Result<(), FileError> {
    durable::write_atomic(&root.join(FILE), render(&RunFacts::read(root)).as_bytes())
}

/// Renders the page. Equal facts give equal bytes.
pub fn render(facts: &RunFacts) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    _ = write_page(&mut page, facts);
    page
}

fn write_page(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let name = facts.root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = escaped(&name);
    writeln!(page, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{name}</title>")?;
    writeln!(page, "<meta name=\"viewport\" content=\"width=device-width\">\n<style>{STYLE}</style>")?;
    writeln!(page, "<h1>Run {name}</h1>")?;
    overview(page, facts)?;
    curves(page, facts)?;
    languages(page, facts)?;
    questions(page, facts)?;
    warnings(page, facts)?;
    course::write(page, facts)?;
    seen(page, facts)?;
    data(page, facts)?;
    writeln!(page, "<h2>Configuration</h2>\n<details><summary>every value, defaults included</summary>")?;
    writeln!(page, "<pre>{}</pre></details>\n</html>", escaped(&facts.config))
}

fn overview(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let started = facts.event("started").cloned().unwrap_or_default();
    let finished = facts.event("finished").cloned().unwrap_or_default();
    let last = facts.steps.last().cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let count = |value: Option<f64>| value.map(|value| format!("{value:.0}")).unwrap_or_default();
    let loss = |record: Option<&Value>| record.and_then(|r| number(r, "loss")).map(|l| format!("{l:.4}"));
    let losses = loss(facts.steps.first()).zip(loss(facts.steps.last()));
    writeln!(page, "<table>")?;
    for (key, value) in [
        ("parameters", count(number(&started, "parameters"))),
        ("began with", facts.planned("/base_model").unwrap_or_else(|| "fresh weights".into())),
        ("steps", format!("{} of {}", count(number(&last, "step")), facts.planned("/max_steps").unwrap_or_default())),
        ("target tokens", count(number(&last, "tokens"))),
        ("loss", losses.map(|(a, b)| format!("{a} → {b} nats a token")).unwrap_or_default()),
        ("learning rate", schedule(facts)),
        ("device", text(&started, "device")),
        ("processes", count(number(&started, "processes"))),
        ("speed", number(&last, "tokens_per_second").map(|s| format!("{s:.0} tokens/s")).unwrap_or_default()),
        ("seconds", count(number(&finished, "seconds"))),
        ("state", text(&finished, "state_digest")),
        ("plan", facts.planned("/digest").unwrap_or_default()),
        ("Jazari", text(&started, "version")),
    ] {
        if !value.is_empty() {
            writeln!(page, "<tr><th>{key}</th><td>{}</td></tr>", escaped(&value))?;
        }
    }
    writeln!(page, "</table>")
}

fn curves(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let point = |record: &Value, key: &str| Some((number(record, "step")?, number(record, key)?));
    let points = facts.steps.iter().filter_map(|record| point(record, "loss")).collect();
    let loss = draw(&[Line { name: "loss".into(), points }], "step", "loss");
    if !loss.is_empty() {
        writeln!(page, "<h2>Training loss, nats a token</h2>\n{loss}")?;
    }
    let lines = score_lines(facts);
    let scores = draw(&lines, "step", "bits per byte");
    if scores.is_empty() {
        return Ok(());
    }
    writeln!(page, "<h2>Held-out text, bits per byte</h2>\n{scores}\n{}", legend(&lines))
}

/// The names of lines beside what they look like.
pub(super) fn legend(lines: &[Line]) -> String {
    let one = |(number, line): (usize, &Line)| format!("<span>{}{}</span>\n", key(number), escaped(&line.name));
    format!("<p class=\"legend\">{}</p>", lines.iter().enumerate().map(one).collect::<String>())
}

/// A line a language, in the order of their names.
fn score_lines(facts: &RunFacts) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for evaluation in &facts.evaluations {
        let step = number(evaluation, "step").unwrap_or(f64::NAN);
        for (name, bpb) in RunFacts::scores(evaluation) {
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push((step, bpb)),
                None => lines.push(Line { name, points: vec![(step, bpb)] }),
            }
        }
    }
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    lines
}

fn languages(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let lines = score_lines(facts);
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "<table><tr><th>language</th><th class=n>first</th><th class=n>last</th><th class=n>change</th></tr>"
    )?;
    for line in &lines {
        let (Some(first), Some(last)) = (line.points.first(), line.points.last()) else { continue };
        let change = (last.1 / first.1 - 1.0) * 100.0;
        let class = if change > 1.0 { "n warn" } else { "n" };
        writeln!(
            page,
            "<tr><td>{}</td><td class=n>{:.3}</td><td class=n>{:.3}</td><td class=\"{class}\">{change:+.1} %</td></tr>",
            escaped(&line.name),
            first.1,
            last.1
        )?;
    }
    writeln!(page, "</table>")
}

fn questions(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let Some(results) = &facts.results else { return Ok(()) };
    let step = results.model.step.unwrap_or_default();
    if !results.tasks.is_empty() {
        writeln!(page, "<h2>Multiple choice, at step {step}</h2>\n<table><tr><th>task</th><th>metric</th>")?;
        writeln!(page, "<th class=n>questions</th><th class=n>right</th><th class=n>guessing</th></tr>")?;
    }
    for (name, task) in &results.tasks {
        for (metric, accuracy) in &task.metrics {
            writeln!(
                page,
                "<tr><td>{}</td><td>{}</td><td class=n>{}</td><td class=n>{:.1} ± {:.1} %</td><td class=n>{:.1} %</td></tr>",
                escaped(name),
                metric.name(),
                accuracy.questions,
                accuracy.value * 100.0,
                accuracy.stderr * 100.0,
                task.chance * 100.0
            )?;
        }
    }
    if !results.tasks.is_empty() {
        writeln!(page, "</table>")?;
    }
    if !results.samples.is_empty() {
        writeln!(page, "<h2>Samples, at step {step}</h2>")?;
    }
    for sample in &results.samples {
        let (prompt, text) = (escaped(&sample.prompt), escaped(&sample.text));
        writeln!(page, "<p dir=\"auto\"><b>{prompt}</b>{text}</p>")?;
    }
    Ok(())
}

/// What a reader must not overlook: languages that got worse, skipped steps, damaged checkpoints.
fn warnings(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let kind = |event: &&Value| event.get("event").and_then(Value::as_str).map(str::to_owned).unwrap_or_default();
    let count = |name: &str| facts.events.iter().filter(|event| kind(event) == name).count();
    let mut lines = Vec::new();
    if let Some(worse) = facts.event("regressed") {
        let step = number(worse, "step").unwrap_or_default();
        for language in worse.get("languages").and_then(Value::as_array).into_iter().flatten() {
            let name = language.get("language").and_then(Value::as_str).unwrap_or_default();
            let rise = number(language, "rise").unwrap_or_default() * 100.0;
            lines.push(format!("{name} was worse by {rise:.1} % at step {step} than at the first evaluation"));
        }
    }
    for (name, what) in [
        ("skipped", "steps were skipped by the guard"),
        ("set_aside", "damaged checkpoints were set aside"),
        ("save_failed", "saves failed"),
        ("resumed", "times the run was resumed"),
    ] {
        match count(name) {
            0 => {}
            times => lines.push(format!("{times} {what}")),
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(page, "<h2>Worth knowing</h2>\n<ul>")?;
    lines.iter().try_for_each(|line| writeln!(page, "<li>{}</li>", escaped(line)))?;
    writeln!(page, "</ul>")
}

/// What the model was shown, by language.
fn seen(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let seen = facts.seen();
    if seen.is_empty() {
        return Ok(());
    }
    let all: f64 = seen.iter().map(|(_, tokens, _)| tokens).sum();
    writeln!(page, "<h2>What the model saw</h2>\n<table><tr><th>language</th><th class=n>target tokens</th>")?;
    writeln!(page, "<th class=n>bytes of text</th><th class=n>share of tokens</th></tr>")?;
    for (language, tokens, bytes) in seen {
        let (language, share) = (escaped(&language), 100.0 * tokens / all.max(1.0));
        writeln!(
            page,
            "<tr><td>{language}</td><td class=n>{tokens:.0}</td><td class=n>{bytes:.0}</td><td class=n>{share:.2} %</td></tr>"
        )?;
    }
    writeln!(page, "</table>")
}

fn data(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    if facts.data.datasets.is_empty() {
        return Ok(());
    }
    writeln!(page, "<h2>Data</h2>")?;
    let forbidden = facts.data.non_commercial();
    if !forbidden.is_empty() {
        let names = escaped(&forbidden.join(", "));
        writeln!(page, "<p class=warn>Parts of the data forbid commercial use: {names}.</p>")?;
    }
    writeln!(page, "<table><tr><th>language</th><th>source</th><th class=n>documents</th><th class=n>tokens</th>")?;
    writeln!(page, "<th>licences</th></tr>")?;
    for stream in facts.data.streams() {
        let licences: Vec<&str> = stream.licences.keys().map(String::as_str).collect();
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=n>{}</td><td class=n>{}</td><td>{}</td></tr>",
            escaped(&stream.lang),
            escaped(&stream.source),
            stream.documents,
            stream.tokens,
            escaped(&licences.join(", "))
        )?;
    }
    writeln!(page, "</table>")
}

/// Text inside HTML, attributes included.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_has_curves_and_no_way_out() {
        let facts = RunFacts {
            root: "runs/<script>alert(1)</script>".into(),
            steps: (1..50)
                .map(|step| {
                    let seen = json!({"ary_Arab": {"rows": 1, "tokens": 3 * step, "bytes": 12 * step}});
                    json!({"step": step, "loss": 5.0 / f64::from(step), "tokens": step, "seen": seen})
                })
                .collect(),
            evaluations: vec![
                json!({"step": 0, "val": {"ary_Arab": {"bpb": 3.0}, "fra_Latn": {"bpb": 2.0}}}),
                json!({"step": 49, "val": {"ary_Arab": {"bpb": 2.0}, "fra_Latn": {"bpb": 2.5}}}),
            ],
            events: vec![
                json!({"event": "regressed", "step": 49, "languages": [{"language": "fra_Latn", "rise": 0.25}]}),
            ],
            config: "seed: 1 # <b>".into(),
            ..RunFacts::default()
        };
        let page = render(&facts);
        assert_eq!(page.matches("<polyline").count(), 3, "{page}");
        assert!(page.contains("fra_Latn was worse by 25.0 % at step 49"), "{page}");
        assert!(page.contains("class=\"n warn\">+25.0 %") && page.contains("seed: 1 # &lt;b&gt;"));
        assert!(page.contains("<td>ary_Arab</td><td class=n>147</td><td class=n>588</td><td class=n>100.00 %</td>"));
        let outside = ["<script", "http://", "https://", "src=", "@import", "url("];
        assert!(outside.iter().all(|way| !page.contains(way)), "{page}");
    }

    #[test]
    fn an_empty_run_has_a_page_as_well() {
        assert!(render(&RunFacts::default()).contains("<h1>Run "));
    }
}
