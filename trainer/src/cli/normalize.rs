//! Owns `jazari data normalize` and `jazari data lexicon`: arguments and what becomes of a row; never knows a rule.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use data_pipeline::filter::{self, AtomicFile, Counts, Edits, FilterError, Outcome, Row, Stage, Watch};
use data_pipeline::normalize::{Changes, Harakat, Normalize, Profile, ProfileName};
use data_pipeline::repair::inversion::{Evidence, is_certain};
use data_pipeline::repair::lexicon::Learner;
use data_pipeline::repair::{RepairConfig, Repairer, Verdict};

use super::failure::{Exit, Failure, note};
use super::filter::{FilterArguments, filter, report, with_progress};
use crate::signals::StopFlag;

/// Arguments of `data normalize`.
#[derive(Debug, Args)]
pub(super) struct NormalizeArguments {
    #[command(flatten)]
    rows: FilterArguments,
    /// The rules of the training form (docs/guide/normalisation.md)
    #[arg(long, value_enum, default_value_t = Form::MoroccanV1)]
    profile: Form,
    /// What happens to Arabic vowel signs
    #[arg(long, value_enum, default_value_t = Signs::Keep)]
    harakat: Signs,
    /// Repair what extraction and wrong encodings did, and drop what no repair can help
    #[arg(long)]
    repair: bool,
    /// Word lists of `jazari data lexicon` beside the built-in one
    #[arg(long, value_name = "FILE", requires = "repair")]
    lexicon: Vec<PathBuf>,
    /// Garbage score from which a row is dropped, 0 to 1; 1.1 keeps them all
    #[arg(long, value_name = "SCORE", default_value_t = 0.5, requires = "repair")]
    max_garbage: f32,
    /// Add the field `changes` (how often each rule fired) and, when there is a score, `garbage` to the rows
    #[arg(long)]
    changes: bool,
}

/// Values of `--profile`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    MoroccanV1,
    Nfc,
    None,
}

/// Values of `--harakat`.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Signs {
    Keep,
    Drop,
}

/// Arguments of `data lexicon`.
#[derive(Debug, Args)]
pub(super) struct LexiconArguments {
    #[command(flatten)]
    rows: FilterArguments,
    /// Words that occur less often are left out
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_count: u32,
}

struct NormalizeStage {
    form: Normalize,
    repairer: Option<Repairer>,
    max_garbage: f32,
    show_changes: bool,
}

impl Stage for NormalizeStage {
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome {
        let label = row.label();
        let mut changes = Changes::default();
        let (text, verdict) = match &self.repairer {
            Some(repairer) => repairer.clean(row.text, self.form, label.as_deref(), &mut changes),
            None => (self.form.apply_to(row.text, label.as_deref(), &mut changes), Verdict::default()),
        };
        for (rule, count) in changes.iter() {
            counts.add(rule, count);
        }
        if let Some(reason) = verdict.garbage(self.max_garbage) {
            return Outcome::Drop(format!("garbage:{}", reason.name()).into());
        }
        let mut edits = Edits { text: (text != row.text).then(|| text.into_owned()), set: Vec::new() };
        if self.show_changes {
            edits.set.push(("changes".to_owned(), serde_json::json!(changes)));
            if let Some(reason) = verdict.reason {
                let score = (f64::from(verdict.score) * 1000.0).round() / 1000.0;
                edits.set.push(("garbage".to_owned(), serde_json::json!({"score": score, "reason": reason.name()})));
            }
        }
        Outcome::Keep(edits)
    }
}

/// Runs `data normalize`.
pub(super) fn normalize(arguments: &NormalizeArguments) -> Result<Exit, Failure> {
    let harakat = if arguments.harakat == Signs::Drop { Harakat::Drop } else { Harakat::Keep };
    let form = match arguments.profile {
        Form::MoroccanV1 => Normalize::Profile(Profile { profile: ProfileName::MoroccanV1, harakat }),
        Form::Nfc => Normalize::Nfc,
        Form::None => Normalize::None,
    };
    if arguments.harakat == Signs::Drop && !matches!(form, Normalize::Profile(_)) {
        return Err(Failure::usage("--harakat drop: only a profile has this rule; write `--profile moroccan-v1`"));
    }
    let config = RepairConfig { lexicons: arguments.lexicon.clone(), max_garbage: arguments.max_garbage };
    config.validate().map_err(|problems| Failure::usage(format!("--{}", problems.join("\n--"))))?;
    let repairer = if arguments.repair { Some(Repairer::new(&config).map_err(Failure::usage)?) } else { None };
    let stage = NormalizeStage { form, repairer, max_garbage: arguments.max_garbage, show_changes: arguments.changes };
    Ok(filter(&arguments.rows, "normalising", &stage)?.0)
}

/// Runs `data lexicon`: the Arabic words of clean texts, and of texts with ligatures turned round those words that this
/// cannot have touched.
pub(super) fn lexicon(arguments: &LexiconArguments) -> Result<Exit, Failure> {
    let inputs = arguments.rows.open()?;
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let path = arguments.rows.out();
    let made = if arguments.rows.to_standard_output() { None } else { Some(AtomicFile::create(path)?) };
    let mut learner = Learner::default();
    let summary = with_progress("counting words", |observe| {
        let watch = Watch { observe, stop: stop.as_atomic() };
        let map = |row: &Row<'_>, _: &mut Counts| (row.text.to_owned(), Evidence::of(row.text).inverted > 0);
        let mut add = |(text, damaged): (String, bool)| {
            learner.add(&text, |word| !damaged || is_certain(word));
            Ok::<(), FilterError>(())
        };
        filter::read(&inputs, &arguments.rows.options(), &map, &mut add, watch)
    })?;
    let list = learner.list(arguments.min_count);
    report(&summary);
    note(&format!("{} words", list.lines().count()));
    let Some(mut out) = made else {
        std::io::stdout().lock().write_all(list.as_bytes()).map_err(Failure::failed)?;
        return Ok(Exit::Done);
    };
    out.write_all(list.as_bytes()).map_err(Failure::failed)?;
    out.commit()?;
    Ok(Exit::Done)
}
