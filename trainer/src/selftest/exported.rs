//! Owns the checks of what leaves a run: export, parity with its own reference, generated text; never touches weights.

use serde_json::Value;

use super::table::{Finding, Outcome};
use super::training::Trained;
use super::{Setup, child};
use crate::durable;

/// The bundle, inside the work folder: `hf/` and `expected/`.
const BUNDLE: &str = "bundle";
/// Tokens of each continuation, as many as the reference has.
const NEW_TOKENS: &str = "24";
/// Largest file of texts or results that is read, bytes.
const TEXTS_LIMIT_BYTES: u64 = 16 << 20;

/// Exports the run, with what its model answers.
pub(super) fn export(setup: &Setup, run: &Trained) -> Outcome {
    let bundle = setup.folder.join(BUNDLE);
    durable::create_folder(&bundle).map_err(|error| error.to_string())?;
    let arguments = ["export", &run.name, "--out", "bundle/hf", "--reference", "bundle/expected"];
    child::run(setup, "export", &arguments)?;
    let weights = bundle.join("hf/model.safetensors");
    let bytes = weights.metadata().map_err(|error| format!("{}: {error}", weights.display()))?.len();
    let finding = Finding::ok("written as a Hugging Face directory, reopened, equal to the trained model");
    Ok(finding.with("weights", bytes as f64 / 1e6, "MB"))
}

/// Opens the export again, in another process, and compares with the reference.
pub(super) fn parity(setup: &Setup) -> Outcome {
    let ran = child::run(setup, "parity", &["parity", BUNDLE, "--json"]);
    let ran = ran.map_err(|why| missed_rows(setup).unwrap_or(why))?;
    let rows = rows(&ran.output);
    if rows.is_empty() || !rows.iter().all(passed) {
        return Err("`jazari parity` reported no rows, or a miss without an exit code; please report it".into());
    }
    let finding = Finding::ok("logits, losses, texts and token ids of the export are those of its reference");
    Ok(finding.with("comparisons", rows.len() as f64, "").with("largest part of a tolerance", largest_part(&rows), "%"))
}

fn rows(output: &str) -> Vec<Value> {
    output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn passed(row: &Value) -> bool {
    row.get("passed").and_then(Value::as_bool) == Some(true)
}

/// Names the comparisons that a failed `jazari parity` reported.
fn missed_rows(setup: &Setup) -> Option<String> {
    let output = setup.folder.join(child::LOGS).join("parity.out");
    let rows = rows(&durable::read_text(&output, TEXTS_LIMIT_BYTES).ok()?);
    let name = |row: &Value| Some(row.get("check")?.as_str()?.to_owned());
    let missed: Vec<_> = rows.iter().filter(|row| !passed(row)).filter_map(name).collect();
    (!missed.is_empty()).then(|| format!("the export is not its reference; these differ: {}", missed.join(", ")))
}

/// How much of its tolerance the comparison with the largest difference used, percent.
fn largest_part(rows: &[Value]) -> f64 {
    let number = |row: &Value, key: &str| row.get(key).and_then(Value::as_f64);
    let part = |row: &Value| {
        let tolerance = number(row, "tolerance").filter(|tolerance| *tolerance > 0.0)?;
        Some(100.0 * number(row, "value")? / tolerance)
    };
    rows.iter().filter_map(part).fold(0.0, f64::max)
}

/// Asks the export the questions of the reference.
pub(super) fn generate(setup: &Setup) -> Outcome {
    let path = setup.folder.join(BUNDLE).join("expected/generation.json");
    let text = durable::read_text(&path, TEXTS_LIMIT_BYTES).map_err(|error| error.to_string())?;
    let damaged = || format!("{}: not a list of texts; please report it", path.display());
    let cases: Vec<Value> = serde_json::from_str(&text).map_err(|_| damaged())?;
    let mut seconds = 0.0;
    for (number, case) in cases.iter().enumerate() {
        let field = |key: &str| case.get(key).and_then(Value::as_str).ok_or_else(damaged);
        let (prompt, expected) = (field("prompt")?, field("text")?);
        let arguments = ["generate", "bundle/hf", "--prompt", prompt, "--max-tokens", NEW_TOKENS, "--device", "cpu"];
        let ran = child::run(setup, &format!("generate-{number}"), &arguments)?;
        seconds += ran.seconds;
        check_answer(prompt, expected, ran.output.trim_end_matches('\n'))?;
    }
    if cases.is_empty() {
        return Err(damaged());
    }
    let average = seconds / cases.len() as f64;
    let finding = Finding::ok("greedy answers in five languages are those of the reference");
    Ok(finding.with("prompts", cases.len() as f64, "").with("start to end of one", average, "s"))
}

/// `jazari generate` ends where the model ends a document, the reference goes on behind it.
fn check_answer(prompt: &str, expected: &str, answer: &str) -> Result<(), String> {
    let new =
        answer.strip_prefix(prompt).ok_or_else(|| format!("the answer to {prompt:?} lacks the prompt: {answer:?}"))?;
    if new.is_empty() && !expected.is_empty() {
        return Err(format!("{prompt:?} was not answered; the reference goes on with {expected:?}"));
    }
    if expected.starts_with(new) {
        Ok(())
    } else {
        Err(format!("{prompt:?} was answered with {new:?}, the reference goes on with {expected:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_the_reference_or_its_beginning() {
        for (answer, right) in
            [("wach ok?", true), ("wach ok", true), ("wach", false), ("ok?", false), ("wach no", false)]
        {
            assert_eq!(check_answer("wach", " ok?", answer).is_ok(), right, "{answer}");
        }
        assert!(check_answer("wach", "", "wach").is_ok());
    }

    #[test]
    fn the_largest_part_of_a_tolerance_counts() {
        let row = |value: f64, tolerance: f64| json!({ "value": value, "tolerance": tolerance });
        assert_eq!(largest_part(&[row(0.0, 0.0), row(1.0, 4.0), row(1.0, 10.0)]), 25.0);
        assert_eq!(largest_part(&[]), 0.0);
    }
}
