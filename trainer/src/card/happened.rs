//! Owns the words for what happened to a run, from its `events.jsonl`: faults, waits, starts; never touches its figures.

use std::fmt::Write;

use serde_json::Value;

use super::html::escaped;
use super::{RunFacts, number};

/// Most events that the report lists; the newest are the ones that count.
const LISTED: usize = 200;

/// An event in a line.
pub fn told(event: &Value) -> Option<String> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    let count = |key: &str| number(event, key).unwrap_or(f64::NAN);
    let step = count("step");
    Some(match event.get("event")?.as_str()? {
        "started" => format!("step {step}: started, {} x {}", count("processes"), text("/device")),
        "resumed" => format!("step {step}: resumed from a checkpoint"),
        "saved" => format!("step {step}: saved, {:.1} MB in {:.1} s", count("bytes") / 1e6, count("seconds")),
        "save_failed" => format!("step {step}: a save FAILED: {}", text("/why")),
        "set_aside" => format!("a damaged checkpoint was set aside: {}", text("/why")),
        "skipped" => {
            let end = count("first_row") + count("rows");
            format!("step {step}: SKIPPED, rows {}..{end}: {}", count("first_row"), reason(event.get("reason")))
        }
        "straggler" => format!(
            "step {step}: rank {} (host {}) holds the others up: {:.2} s of {}, the others {:.2} s",
            count("rank"),
            text("/host"),
            count("seconds"),
            text("/phase"),
            count("median")
        ),
        "regressed" => {
            let worse = event.get("languages").and_then(Value::as_array).into_iter().flatten().map(|language| {
                let name = language.get("language").and_then(Value::as_str).unwrap_or("?");
                format!("{name} by {:.1} %", number(language, "rise").unwrap_or(f64::NAN) * 100.0)
            });
            format!("step {step}: got WORSE since the start: {}", worse.collect::<Vec<_>>().join(", "))
        }
        "paused" => format!("step {step}: no power, saved and waiting: {}", text("/why")),
        "woken" => format!("step {step}: power again after {:.0} s", count("seconds")),
        "stopping" => format!("step {step}: a stop was asked for"),
        "broken" => format!("step {step}: BROKEN OFF [{}]: {}", text("/code"), text("/why")),
        "finished" => format!("step {step}: this process was done after {:.0} s", count("seconds")),
        "noted" => text("/text"),
        "dataset_changed" => format!("step {step}: another data set from here on"),
        "outer_joined" => format!("step {step}: this site is in round {}", count("round")),
        "outer_round" => format!("step {step}: round {} of the sites is over", count("round")),
        "outer_waiting" => format!("step {step}: the coordinator waits for other sites"),
        "outer_retrying" => format!("step {step}: the coordinator is tried again: {}", text("/why")),
        other => format!("step {step}: {}", other.replace('_', " ")),
    })
}

/// Why a step was skipped: a name, or a name with figures.
fn reason(reason: Option<&Value>) -> String {
    match reason {
        Some(Value::String(name)) => name.replace('_', " "),
        Some(Value::Object(named)) => {
            named.iter().map(|(name, figures)| format!("{} {figures}", name.replace('_', " "))).collect()
        }
        _ => "?".to_owned(),
    }
}

/// Writes what happened to a run besides steps, evaluations and saves, with the time.
pub(super) fn write(page: &mut String, facts: &RunFacts) -> std::fmt::Result {
    let is_usual = |kind: &str| matches!(kind, "saved" | "finished" | "outer_round" | "outer_joined");
    let told: Vec<(f64, String)> = facts
        .events
        .iter()
        .filter(|event| event.get("event").and_then(Value::as_str).is_some_and(|kind| !is_usual(kind)))
        .filter_map(|event| Some((number(event, "unix_ms").unwrap_or(0.0), told(event)?)))
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    let left_out = told.len().saturating_sub(LISTED);
    writeln!(page, "<h3>What happened</h3>\n<table><tr><th>time (UTC)</th><th>event</th></tr>")?;
    for (unix_ms, words) in told.iter().skip(left_out) {
        // Milliseconds of this century fit.
        let time = jiff::Timestamp::from_millisecond(*unix_ms as i64).map(|time| time.strftime("%F %T").to_string());
        writeln!(page, "<tr><td>{}</td><td>{}</td></tr>", time.unwrap_or_default(), escaped(words))?;
    }
    writeln!(page, "</table>")?;
    match left_out {
        0 => Ok(()),
        count => writeln!(page, "<p>{count} earlier ones are in events.jsonl.</p>"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_are_told_and_saves_are_not_listed() {
        let events = vec![
            json!({"event": "started", "step": 0, "processes": 2, "device": "cpu <x>", "unix_ms": 1_700_000_000_000u64}),
            json!({"event": "saved", "step": 10, "bytes": 1e6, "seconds": 1.0}),
            json!({"event": "skipped", "step": 11, "first_row": 64, "rows": 8, "reason": {"loss_outlier": {"value": 9.0}}}),
            json!({"event": "skipped", "step": 12, "first_row": 72, "rows": 8, "reason": "non_finite_loss"}),
            json!({"event": "straggler", "step": 20, "rank": 1, "host": "b", "phase": "data", "seconds": 2.5, "median": 0.5}),
            json!({"event": "broken", "step": 21, "why": "rank 1 died", "code": "J0701"}),
            json!({"event": "regressed", "step": 30, "languages": [{"language": "fra_Latn", "rise": 0.025}]}),
        ];
        let facts = RunFacts { events, ..RunFacts::default() };
        let mut page = String::new();
        assert!(write(&mut page, &facts).is_ok());
        for words in [
            "<td>2023-11-14 22:13:20</td><td>step 0: started, 2 x cpu &lt;x&gt;</td>",
            "step 11: SKIPPED, rows 64..72: loss outlier",
            "step 12: SKIPPED, rows 72..80: non finite loss",
            "step 20: rank 1 (host b) holds the others up: 2.50 s of data, the others 0.50 s",
            "step 21: BROKEN OFF [J0701]: rank 1 died",
            "step 30: got WORSE since the start: fra_Latn by 2.5 %",
        ] {
            assert!(page.contains(words), "{words}\n{page}");
        }
        assert!(!page.contains("saved, 1.0 MB"));
        let many = RunFacts { events: vec![json!({"event": "noted", "text": "x"}); LISTED + 7], ..RunFacts::default() };
        let mut page = String::new();
        assert!(write(&mut page, &many).is_ok() && page.contains("<p>7 earlier ones"), "{page}");
    }
}
