//! Owns `jazari tokenizer eval`: which files and gates, the tables; never measures itself.

use std::path::{Path, PathBuf};

use clap::Args;
use data_pipeline::config::{PrepareConfig, SourceConfig};
use data_pipeline::document::{Document, is_language_label};
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::eval::Evaluation;
use data_pipeline::tokenizer::gates::{self, Gate, Gates};
use data_pipeline::tokenizer::report::{Figures, Report};
use serde_json::json;

use super::failure::{Exit, Failure, note, say};
use super::progress::thousands;
use crate::config;
use crate::signals::StopFlag;

/// Text that is measured at a time, in bytes.
const CHUNK_BYTES: usize = 8 << 20;

#[derive(Debug, Args)]
pub(super) struct EvalArguments {
    /// tokenizer.json, or a folder that holds it
    tokenizer: PathBuf,
    /// Raw files, folders or globs
    #[arg(required = true)]
    inputs: Vec<String>,
    /// Another tokenizer to show beside it; may be given several times
    #[arg(long, value_name = "TOKENIZER")]
    against: Vec<PathBuf>,
    /// Language and script of rows that name none
    #[arg(long, value_name = "LABEL")]
    lang: Option<String>,
    /// Compare lengths with those of this language
    #[arg(long, value_name = "LABEL")]
    reference: Option<String>,
    /// Field by which rows of one source are translations of each other, for --reference
    #[arg(long, value_name = "FIELD", requires = "reference")]
    key: Option<String>,
    /// A bound that ends in exit code 3 where it does not hold: `zgh_Tfng.max_tokens_per_word=3.2`, `*.max_byte_share=0.05`
    #[arg(long = "gate", value_name = "LANG.BOUND=N")]
    gates: Vec<String>,
    /// Take the gates of this data config (YAML) as well
    #[arg(long, value_name = "CONFIG")]
    gates_of: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Measures tokenizers on raw files.
pub(super) fn eval(arguments: &EvalArguments) -> Result<Exit, Failure> {
    let gates = gates_of(arguments)?;
    if let Some(label) = arguments.lang.iter().chain(&arguments.reference).find(|label| !is_language_label(label)) {
        return Err(Failure::usage(format!("{label}: is no language label; write for example ary_Arab")));
    }
    let paths = std::iter::once(&arguments.tokenizer).chain(&arguments.against);
    let tokenizers: Vec<Tokenizer> =
        paths.map(|path| Tokenizer::open(path)).collect::<Result<_, _>>().map_err(Failure::usage)?;
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let source = |input: &String| {
        let mut source = SourceConfig::at(input);
        source.lang.clone_from(&arguments.lang);
        source.fields.id.clone_from(&arguments.key);
        source
    };
    let sources: Vec<SourceConfig> = arguments.inputs.iter().map(source).collect();
    let keyed = |tokenizer| {
        let evaluation = Evaluation::new(tokenizer);
        if arguments.key.is_some() { evaluation.keyed() } else { evaluation }
    };
    let mut evaluations: Vec<Evaluation<'_>> = tokenizers.iter().map(keyed).collect();
    measure(&sources, &ReadOptions::default(), stop.as_atomic(), &mut evaluations, u64::MAX)?;
    let reference = arguments.reference.as_deref();
    let reports: Vec<Report> = evaluations.into_iter().map(|evaluation| evaluation.report(reference)).collect();
    if let (Some(name), Some(report)) = (reference, reports.first())
        && !report.languages.contains_key(name)
    {
        return Err(Failure::usage(format!("--reference {name}: there are no documents of this language")));
    }
    let verdict = reports.first().map(|report| gates::check(&gates, report));
    let verdict = verdict.filter(|verdict| !verdict.checked.is_empty());
    if arguments.json {
        say(&format!("{:#}", json!({"tokenizers": reports, "gates": verdict.as_ref().map(|v| &v.checked)})));
    } else {
        match reports.as_slice() {
            [report] => print(report),
            reports => compare(reports),
        }
        verdict.iter().for_each(|verdict| say(&format!("\n{verdict}")));
    }
    match verdict.filter(|verdict| !verdict.passed()) {
        None => Ok(Exit::Done),
        Some(verdict) => {
            note(&format!("{} of {} gates failed", verdict.failures(), verdict.checked.len()));
            Ok(Exit::Missed)
        }
    }
}

/// Hands the documents of `sources` to all evaluations, of each language `most_bytes` of text and what comes with it.
pub(super) fn measure(
    sources: &[SourceConfig],
    options: &ReadOptions,
    stop: &std::sync::atomic::AtomicBool,
    evaluations: &mut [Evaluation<'_>],
    most_bytes: u64,
) -> Result<(), Failure> {
    let (mut chunk, mut bytes): (Vec<Document>, usize) = (Vec::new(), 0);
    let mut measured: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    read_documents(sources, options, stop, &mut |document| {
        let own = measured.entry(document.lang.clone()).or_default();
        if *own >= most_bytes {
            return Ok(());
        }
        *own += document.text.len() as u64;
        bytes += document.text.len();
        chunk.push(document);
        if bytes >= CHUNK_BYTES {
            evaluations.iter_mut().try_for_each(|evaluation| evaluation.add_all(&chunk))?;
            chunk.clear();
            bytes = 0;
        }
        Ok(())
    })?;
    evaluations.iter_mut().try_for_each(|evaluation| evaluation.add_all(&chunk)).map_err(Failure::failed)
}

fn gates_of(arguments: &EvalArguments) -> Result<Gates, Failure> {
    let mut gates = match &arguments.gates_of {
        Some(path) => config::load::<PrepareConfig>(path, &[]).map_err(Failure::usage)?.0.tokenizer.gates,
        None => Gates::new(),
    };
    for text in &arguments.gates {
        let wrong = |why: &str| {
            let bounds = Gate::NAMES.join(", ");
            Failure::usage(format!("--gate {text}: {why}; write LANG.BOUND=N, where BOUND is one of {bounds}"))
        };
        let (path, value) = text.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let (lang, bound) = path.rsplit_once('.').ok_or_else(|| wrong("there is no `.`"))?;
        let value: f64 = value.trim().parse().map_err(|_| wrong("that is no number"))?;
        let gate = gates.entry(lang.trim().to_owned()).or_default();
        if !gate.set(bound.trim(), value) {
            return Err(wrong("there is no such bound"));
        }
        if let Some(problem) = gate.problems().next() {
            return Err(wrong(&problem));
        }
        if gate.max_parity.is_some() && arguments.reference.is_none() {
            return Err(wrong("max_parity needs --reference"));
        }
    }
    Ok(gates)
}

fn print(report: &Report) {
    say(&format!("{}: {} entries", report.tokenizer, thousands(report.vocab_size as f64)));
    let has_parity = report.languages.values().any(|figures| figures.parity.is_some());
    let parity_head = if has_parity { "   parity" } else { "" };
    say(&format!(
        "{:<10} {:>10} {:>12} {:>11} {:>10} {:>11} {:>8} {:>8} {:>8}{parity_head}  round trip",
        "language", "documents", "words", "tokens/word", "/character", "bytes/token", "unknown", "bytes", "entries"
    ));
    let line = |name: &str, figures: &Figures| {
        let counts = &figures.counts;
        let trip = match counts.failed_round_trips {
            0 => "exact".to_owned(),
            failed => format!("{failed} FAIL"),
        };
        let parity = match &figures.parity {
            Some(parity) => format!(" {:>7.2}{}", parity.ratio, if parity.parallel_rows > 0 { "=" } else { " " }),
            None if has_parity => " ".repeat(9),
            None => String::new(),
        };
        say(&format!(
            "{name:<10} {:>10} {:>12} {:>11.3} {:>10.3} {:>11.3} {:>6.2} % {:>6.2} % {:>7}{parity}  {trip}",
            thousands(counts.documents as f64),
            thousands(counts.words as f64),
            figures.tokens_per_word,
            figures.tokens_per_character,
            figures.bytes_per_token,
            100.0 * figures.unknown_share,
            100.0 * figures.byte_share,
            thousands(counts.vocabulary_used as f64)
        ));
    };
    report.languages.iter().for_each(|(name, figures)| line(name, figures));
    say("");
    report.scripts.iter().for_each(|(name, figures)| line(&format!("*_{name}"), figures));
    if has_parity {
        say("parity: tokens against the reference language; `=` on parallel rows, else by tokens a word");
    }
    print_special(report);
    say("");
    say(&format!("{:<20} {:>10} {:>10}", "vocabulary", "entries", "used"));
    for (script, vocabulary) in &report.vocabulary {
        let (entries, used) = (thousands(vocabulary.entries as f64), thousands(vocabulary.used as f64));
        say(&format!("{script:<20} {entries:>10} {used:>10}"));
    }
}

/// Words of the kinds that tokenizers get wrong.
fn print_special(report: &Report) {
    let special = |figures: &&Figures| figures.counts.bordered.words + figures.counts.marked.words > 0;
    if !report.languages.values().any(|figures| special(&figures)) {
        return;
    }
    say("");
    say(&format!(
        "{:<10} {:>14} {:>11} {:>10} {:>14} {:>11} {:>12}",
        "language", "letter-digit", "tokens/word", "cut there", "diacritised", "tokens/word", "to bare word"
    ));
    for (name, figures) in report.languages.iter().filter(|(_, figures)| special(figures)) {
        let (bordered, marked) = (figures.counts.bordered, figures.counts.marked);
        let per_word = |tokens: u64, words: u64| match words {
            0 => "-".to_owned(),
            words => format!("{:.3}", tokens as f64 / words as f64),
        };
        let cut = if bordered.words == 0 { "-".into() } else { format!("{:.1} %", 100.0 * figures.cut_share) };
        say(&format!(
            "{name:<10} {:>14} {:>11} {cut:>10} {:>14} {:>11} {:>12}",
            thousands(bordered.words as f64),
            per_word(bordered.tokens, bordered.words),
            thousands(marked.words as f64),
            per_word(marked.tokens, marked.words),
            figures.mark_inflation.map_or("-".to_owned(), |ratio| format!("x {ratio:.2}"))
        ));
    }
}

/// Several tokenizers side by side.
fn compare(reports: &[Report]) {
    for (number, report) in (1..).zip(reports) {
        let name = Path::new(&report.tokenizer).display();
        say(&format!("[{number}] {name}: {} entries", thousands(report.vocab_size as f64)));
    }
    type Column = (&'static str, fn(&Figures) -> String);
    let columns: [Column; 6] = [
        ("tokens a word", |figures| format!("{:.3}", figures.tokens_per_word)),
        ("bytes a token", |figures| format!("{:.3}", figures.bytes_per_token)),
        ("less than a character", |figures| format!("{:.2} %", 100.0 * figures.byte_share)),
        ("letter-digit words cut", |figures| match figures.counts.bordered.words {
            0 => "-".into(),
            _ => format!("{:.1} %", 100.0 * figures.cut_share),
        }),
        ("parity", |figures| figures.parity.as_ref().map_or("-".into(), |parity| format!("{:.2}", parity.ratio))),
        ("failed round trips", |figures| figures.counts.failed_round_trips.to_string()),
    ];
    let Some(first) = reports.first() else { return };
    for (title, show) in columns {
        if first.languages.values().all(|figures| show(figures) == "-") {
            continue;
        }
        let heads: String = (1..=reports.len()).map(|number| format!(" {:>10}", format!("[{number}]"))).collect();
        say(&format!("\n{title:<22}{heads}"));
        for language in first.languages.keys() {
            let cell = |report: &Report| report.languages.get(language).map_or("-".into(), show);
            let cells: String = reports.iter().map(|report| format!(" {:>10}", cell(report))).collect();
            say(&format!("{language:<22}{cells}"));
        }
    }
}
