//! Owns progress on the terminal: bars where a person looks, plain lines elsewhere; never touches the work.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

use super::failure::note;
use crate::events::{EvalRecord, Event, StepRecord};

/// Plain lines of long stages are at least this far apart.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Shows a training run.
pub struct TrainProgress {
    bar: Option<ProgressBar>,
    max_steps: u64,
    start: Instant,
    first_step: u64,
    previous_eval: Option<EvalRecord>,
}

impl TrainProgress {
    /// A bar on a terminal, plain lines elsewhere.
    pub fn new(max_steps: u64, first_step: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(max_steps).with_position(first_step);
            bar.set_style(style("{spinner} step {pos}/{len} {wide_bar} {msg}"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, max_steps, start: Instant::now(), first_step, previous_eval: None }
    }

    fn woken(&self, step: u64, seconds: f64) {
        let waited = HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        self.line(&format!("there is power again after {waited}: going on from step {step}"));
    }

    fn started(&self, event: &Event) {
        let Event::Started { step, parameters, device, dataset, plan, peak_flops, processes, engine, .. } = event
        else {
            return;
        };
        self.line(&format!(
            "training {:.2} M parameters on {}{device} (peak {:.0} GFLOP/s){}, from step {step}, plan {}, dataset {}",
            *parameters as f64 / 1e6,
            if *processes > 1 { format!("{processes} x ") } else { String::new() },
            peak_flops / 1e9,
            if *processes > 1 { format!(" over {engine}") } else { String::new() },
            short(plan),
            short(dataset)
        ));
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => self.started(event),
            Event::Resumed { step, checkpoint } => {
                self.line(&format!("resumed at step {step} from {}", checkpoint.display()));
            }
            Event::DatasetChanged { step, from, to, .. } => self.dataset_changed(*step, from, to),
            Event::Noted { text } => self.line(text),
            Event::SetAside { checkpoint, moved_to, why } => self.line(&format!(
                "warning: {} is damaged ({why}); kept as {}",
                checkpoint.display(),
                moved_to.display()
            )),
            Event::Step(record) => self.step(record),
            Event::Tick { step, .. } => self.position(*step),
            // The error itself is shown.
            Event::Digest { .. } | Event::Broken { .. } => {}
            Event::Paused { step, why } => {
                self.line(&format!("paused after step {step}, saved: {why}; it goes on by itself"))
            }
            Event::Woken { step, seconds } => self.woken(*step, *seconds),
            Event::Skipped { step, first_row, rows, reason } => self
                .line(&format!("warning: step {step} was skipped: {reason} (rows {first_row}..{})", first_row + rows)),
            Event::Evaluating { language, rows_done, rows } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("evaluating {language} {rows_done}/{rows} rows"));
                }
            }
            Event::Evaluated(record) => self.evaluated(record),
            Event::Regressed(regression) => self.line(&format!("warning: step {}: {regression}", regression.step)),
            Event::Saved { checkpoint, bytes, seconds, .. } => {
                self.line(&format!("saved {} ({}, {seconds:.1} s)", checkpoint.display(), HumanBytes(*bytes)));
            }
            Event::SaveFailed { step, why } => self.line(&format!("warning: the save at step {step} failed: {why}")),
            Event::Stopping { step } => {
                self.line(&format!("stopping at step {step}: saving first (again to leave at once)"))
            }
            Event::Straggler(slow) => self.line(&format!(
                "warning: rank {} (host {}) holds the others up: {:.2} s of {} in the last window, the others {:.2} s",
                slow.rank,
                slow.host,
                slow.seconds,
                slow.phase.name(),
                slow.median
            )),
            Event::OuterJoined { round, site, .. } => self.line(&format!("site {site} is in round {round} (outer)")),
            Event::OuterWaiting { delivered, expected, .. } => {
                self.line(&format!("delivered: {} of {expected} sites ({})", delivered.len(), delivered.join(", ")));
            }
            Event::OuterRetrying { why, .. } => self.line(&format!("trying the coordinator again: {why}")),
            Event::OuterRound { round, included, sites, sent_bytes, received_bytes, seconds, .. } => {
                self.line(&format!(
                    "outer round {round}: {} ({}), sent {}, received {}, {seconds:.1} s{}",
                    if sites.len() == 1 { "1 site".to_owned() } else { format!("{} sites", sites.len()) },
                    sites.join(", "),
                    HumanBytes(*sent_bytes),
                    HumanBytes(*received_bytes),
                    if *included { "" } else { "; this site came too late, its part was dropped" }
                ));
            }
            Event::Finished { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
    }

    fn dataset_changed(&self, step: u64, from: &str, to: &str) {
        let (from, to) = (short(from), short(to));
        self.line(&format!("from step {step} on data set {to} in place of {from}, as acknowledged"));
    }

    fn step(&mut self, r: &StepRecord) {
        self.position(r.step);
        let done = (r.step - self.first_step.min(r.step)).max(1);
        let left = self.max_steps.saturating_sub(r.step);
        let eta = self.start.elapsed().mul_f64(left as f64 / done as f64);
        let text = format!(
            "loss {:.4}  lr {:.2e}  grad {:.2}  {} tok/s  {:.0} % of peak  data wait {:.1} %  ETA {}",
            r.loss,
            r.lr,
            r.grad_norm,
            thousands(r.tokens_per_second),
            r.mfu * 100.0,
            r.data_wait * 100.0,
            HumanDuration(eta)
        );
        let preferred = r.reward_margin.zip(r.preference_accuracy);
        let text = match preferred {
            Some((margin, right)) => format!("margin {margin:+.3}  right {:.0} %  {text}", right * 100.0),
            None => text,
        };
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => note(&format!("step {:>6}/{}  {text}", r.step, self.max_steps)),
        }
    }

    fn evaluated(&mut self, record: &EvalRecord) {
        let mut text = format!("step {}: bits per byte on held-out documents ({:.1} s)", record.step, record.seconds);
        for (language, score) in &record.val {
            let before = self.previous_eval.as_ref().and_then(|e| e.val.get(language));
            let change = before.map(|b| format!(" ({:+.3})", score.bpb - b.bpb)).unwrap_or_default();
            text.push_str(&format!("\n    {language:<10} {:>7.3}{change}  {} bytes", score.bpb, score.bytes));
        }
        text.push_str(&format!("\n    {:<10} {:>7.3}", "all", record.val_bpb_all));
        self.previous_eval = Some(record.clone());
        self.line(&text);
    }

    fn position(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}

/// Shows stages of known or unknown length, such as those of `data prepare`.
pub struct StageProgress {
    bar: Option<ProgressBar>,
    name: String,
    total: Option<u64>,
    last_line: Instant,
}

impl StageProgress {
    /// Nothing is shown before the first stage.
    pub fn new() -> Self {
        Self { bar: None, name: String::new(), total: None, last_line: Instant::now() }
    }

    /// Starts a stage of `total` bytes, or of unknown length.
    pub fn stage(&mut self, name: &str, total: Option<u64>) {
        self.end();
        (self.name, self.total, self.last_line) = (name.to_owned(), total, Instant::now());
        if std::io::stderr().is_terminal() {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            bar.set_style(match total {
                Some(_) => style("{spinner} {prefix} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta} {msg}"),
                None => style("{spinner} {prefix} {elapsed} {msg}"),
            });
            bar.set_prefix(self.name.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            self.bar = Some(bar);
        } else {
            note(&self.name);
        }
    }

    /// Says how far the stage is.
    pub fn at(&mut self, done: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_owned());
        } else if self.last_line.elapsed() >= PLAIN_INTERVAL {
            self.last_line = Instant::now();
            let of = self.total.map(|t| format!("/{}", HumanBytes(t))).unwrap_or_default();
            let bytes = if done == 0 && of.is_empty() { String::new() } else { format!("{}{of} ", HumanBytes(done)) };
            note(&format!("{}: {bytes}{message}", self.name));
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    /// Ends the stage.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; a mistake in one would only cost the decoration.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The first digits of a digest, enough for a person to compare.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A number with thousands set apart: `12 345`.
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(' ');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(0.0), "0");
        assert_eq!(thousands(999.4), "999");
        assert_eq!(thousands(1234567.0), "1 234 567");
    }
}
