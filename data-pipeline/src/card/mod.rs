//! Owns the data card: the statistics of a dataset as pages for people, in Markdown and HTML; never counts anything
//! itself.

mod facts;
mod html;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use self::facts::{CardFacts, stage_of};
use crate::config::{PrepareConfig, TokenizerSource};
use crate::dataset::DataError;
use crate::dedup::Dedup;
use crate::manifest::Manifest;
use crate::normalize::Normalize;
use crate::removal;
use crate::stats::{Stats, StatsError, Tally};

/// File name of the card inside a dataset.
pub const CARD_FILE: &str = "DATACARD.md";
/// File name of the card as a page with charts.
pub const HTML_FILE: &str = "datacard.html";

/// A card that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The data set cannot be read, or the pages not written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The statistics cannot be read.
    #[error(transparent)]
    Stats(#[from] StatsError),
}

/// Both pages of the data set in `dir`, by file name. Equal data sets, statistics and configurations give equal bytes.
///
/// # Errors
/// Shards that cannot be read.
pub(crate) fn render(
    dir: &Path,
    manifest: &Manifest,
    stats: &Stats,
    config: &PrepareConfig,
) -> Result<[(&'static str, String); 2], DataError> {
    pages(&CardFacts::gather(dir, manifest, stats, method(config, manifest.tokenizer.vocab_size))?)
}

/// [`render`] for a data set that is there already: how it was made is taken from its card.
///
/// # Errors
/// Shards that cannot be read.
pub(crate) fn rerender(
    dir: &Path,
    manifest: &Manifest,
    stats: &Stats,
) -> Result<[(&'static str, String); 2], DataError> {
    let old = std::fs::read_to_string(dir.join(CARD_FILE)).unwrap_or_default();
    let lines = old.split_once("\n## Method\n").map(|(_, method)| method).unwrap_or_default().lines();
    let method = lines.filter_map(|line| line.strip_prefix("- ")).map(str::to_owned).collect();
    pages(&CardFacts::gather(dir, manifest, stats, method)?)
}

/// Writes both pages of the data set in `dir` anew; returns their names.
///
/// # Errors
/// A folder without a data set or statistics, or a disk that refuses.
pub fn rewrite(dir: &Path) -> Result<[&'static str; 2], CardError> {
    let manifest = Manifest::read(dir)?;
    let stats = Stats::read(dir)?;
    let pages = rerender(dir, &manifest, &stats)?;
    for (name, page) in &pages {
        removal::replace(&dir.join(name), page.as_bytes())?;
    }
    Ok(pages.map(|(name, _)| name))
}

fn pages(facts: &CardFacts<'_>) -> Result<[(&'static str, String); 2], DataError> {
    let mut page = String::new();
    // Writing to a String cannot fail.
    _ = write(&mut page, facts);
    Ok([(CARD_FILE, page), (HTML_FILE, html::render(facts))])
}

fn write(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    let stats = facts.stats;
    let total = &stats.total;
    writeln!(page, "# Data card\n")?;
    writeln!(page, "Data set `{}`.\n", facts.manifest.id())?;
    writeln!(
        page,
        "{} rows were read from {} files; {} became documents ({} words, {} bytes, {} tokens), {} were dropped, \
         {} of them into `quarantine.jsonl`. {} documents are held out for validation.\n",
        total.rows,
        stats.files.len(),
        total.documents,
        total.words,
        total.bytes,
        total.tokens(),
        total.num_dropped(),
        stats.quarantined,
        total.validation_documents,
    )?;
    table(page, "Languages", "language", &stats.by_language())?;
    table(page, "Sources", "source", &stats.by_source())?;

    writeln!(page, "## Languages of each source\n")?;
    writeln!(page, "| language | source | documents | words | train tokens | validation tokens | licences |")?;
    writeln!(page, "|---|---|---:|---:|---:|---:|---|")?;
    for component in &stats.components {
        let tally = &component.tally;
        let licences: Vec<String> = component.licences.iter().map(|(name, n)| format!("{} {n}", cell(name))).collect();
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            cell(&component.lang),
            cell(&component.source),
            tally.documents,
            tally.words,
            tally.train_tokens,
            tally.validation_tokens,
            licences.join(", "),
        )?;
    }

    writeln!(page, "\n## Licences\n\n| licence | documents | words |\n|---|---:|---:|")?;
    for (name, tally) in &stats.licences {
        writeln!(page, "| {} | {} | {} |", cell(name), tally.documents, tally.words)?;
    }
    dropped(page, stats)?;
    lengths(page, facts)?;
    for extra in &facts.extras {
        writeln!(page, "\n## {}\n\n| | |\n|---|---:|", extra.title)?;
        for (name, value) in &extra.rows {
            writeln!(page, "| {} | {} |", cell(name), cell(value))?;
        }
    }
    removals(page, facts)?;
    files(page, stats)?;
    writeln!(page, "\n## Method\n")?;
    facts.method.iter().try_for_each(|line| writeln!(page, "- {line}"))
}

fn dropped(page: &mut String, stats: &Stats) -> std::fmt::Result {
    writeln!(page, "\n## Dropped rows\n\n| stage | reason | rows |\n|---|---|---:|")?;
    let mut rows: Vec<_> = stats.total.dropped.iter().map(|(reason, rows)| (stage_of(reason), reason, rows)).collect();
    rows.sort();
    rows.iter().try_for_each(|(stage, reason, rows)| writeln!(page, "| {stage} | {} | {rows} |", cell(reason)))
}

fn lengths(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    writeln!(page, "\n## Lengths\n\nTokens of a document, special tokens included.\n")?;
    writeln!(page, "| language | mean | longest | up to 63 | 64 to 511 | 512 to 4095 | 4096 and more |")?;
    writeln!(page, "|---|---:|---:|---:|---:|---:|---:|")?;
    for (name, lengths) in &facts.lengths {
        let sum = |from: usize, to: usize| lengths.buckets.get(from..to).unwrap_or_default().iter().sum::<u64>();
        let (mean, longest) = (lengths.mean(), lengths.longest);
        let parts =
            [sum(0, 6), sum(6, 9), sum(9, 12), sum(12, self::facts::BUCKETS)].map(|n| n.to_string()).join(" | ");
        writeln!(page, "| {} | {mean:.0} | {longest} | {parts} |", cell(name))?;
    }
    Ok(())
}

fn removals(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    if facts.removals.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n## Taken down\n\n| when | documents | tokens | named by | why | data set before |")?;
    writeln!(page, "|---|---:|---:|---|---|---|")?;
    for removal in &facts.removals {
        let reason = removal.reason.as_deref().unwrap_or("");
        let named = removal.selection.join(", ");
        let old = removal.old.get(..12).unwrap_or(&removal.old);
        let (time, documents, tokens) = (&removal.time, removal.documents, removal.tokens);
        writeln!(page, "| {time} | {documents} | {tokens} | {} | {} | `{old}` |", cell(&named), cell(reason))?;
    }
    Ok(())
}

fn table(page: &mut String, title: &str, column: &str, sums: &BTreeMap<String, Tally>) -> std::fmt::Result {
    writeln!(page, "## {title}\n")?;
    writeln!(page, "| {column} | rows | documents | duplicates | other drops | held out | bytes | words | tokens |")?;
    writeln!(page, "|---|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    for (name, tally) in sums {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            cell(name),
            tally.rows,
            tally.documents,
            tally.duplicates(),
            tally.num_dropped() - tally.duplicates(),
            tally.validation_documents,
            tally.bytes,
            tally.words,
            tally.tokens(),
        )?;
    }
    writeln!(page)
}

fn files(page: &mut String, stats: &Stats) -> std::fmt::Result {
    writeln!(
        page,
        "\n## Files\n\n| entry | file | bytes | rows | documents | BLAKE3 |\n|---:|---|---:|---:|---:|---|"
    )?;
    for file in &stats.files {
        let damage = file.damage.as_ref().map(|what| format!(" (damaged {})", cell(what))).unwrap_or_default();
        let name = cell(&file.file);
        writeln!(
            page,
            "| {} | {name}{damage} | {} | {} | {} | `{}` |",
            file.entry, file.bytes, file.rows, file.documents, file.blake3
        )?;
    }
    Ok(())
}

/// How a configuration makes a data set, a sentence each.
fn method(config: &PrepareConfig, vocab_size: usize) -> Vec<String> {
    let normalize = match config.normalize {
        Normalize::Nfc => "Unicode NFC, line feeds for line ends, no NUL, no leading byte order mark",
        Normalize::None => "none",
        Normalize::Profile(_) => "the profile `moroccan-v1` (docs/guide/normalisation.md)",
    };
    let dedup = match config.dedup {
        Dedup::Exact => "the first of the documents of a language with the same key form is kept",
        Dedup::None => "none",
    };
    let licences: Vec<String> = config.allow_licences.iter().map(|name| format!("`{name}`")).collect();
    let commercial = if config.non_commercial { "accepted when listed" } else { "refused" };
    let opt_outs = config.opt_outs.clone().unwrap_or_default();
    let marks = if opt_outs.markers { "rows that say so are dropped" } else { "marks in rows were not looked at" };
    let lists = match opt_outs.lists.len() {
        0 => String::new(),
        1 => ", and what a list names".to_owned(),
        lists => format!(", and what {lists} lists name"),
    };
    let tokenizer = match config.tokenizer.source() {
        TokenizerSource::Path(_) | TokenizerSource::Missing => "given",
        TokenizerSource::Train(_) => "trained on the training documents",
    };
    let validation = &config.validation;
    let looked_at = |on: bool, what: &str| on.then(|| format!("{what}."));
    let stages = [
        looked_at(config.repair.is_some(), "Damaged texts were repaired, or left out where that was not possible"),
        looked_at(config.identify.is_some(), "Languages and scripts were identified from the texts"),
        looked_at(config.filters.is_some(), "Texts of low quality were left out, by limits for each language"),
        looked_at(config.decontaminate.is_some(), "Texts that hold items of the benchmarks given were left out"),
        looked_at(config.paragraphs.is_some(), "Paragraphs that repeat across documents were removed"),
        looked_at(config.near.is_some(), "Near duplicates were left out (MinHash)"),
    ];
    let lines = [
        format!("Normalisation: {normalize}."),
        format!("Duplicates: {dedup}."),
        format!("Licences allowed: {}; non-commercial ones are {commercial}.", licences.join(", ")),
        format!("Opt-outs: {marks}{lists}."),
        format!(
            "Validation: {} of each language by a digest of the text, and up to a tenth while there are fewer than {} \
             documents.",
            validation.fraction, validation.min_documents
        ),
        format!("Tokenizer: {tokenizer}, {vocab_size} tokens."),
        "Words are what white space divides; tokens include the special tokens around each document.".to_owned(),
        if config.pii.is_some() {
            "Personal data of the kinds above was replaced by placeholders; names of people were not looked for."
        } else {
            "Personal data was not looked for."
        }
        .to_owned(),
    ];
    let (first, rest) = lines.split_at(1);
    first.iter().cloned().chain(stages.into_iter().flatten()).chain(rest.iter().cloned()).collect()
}

/// Text of a table cell: no line ends, no column marks; right-to-left text is set apart from the figures beside it.
fn cell(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ").replace('|', "\\|");
    let is_rtl =
        text.chars().any(|c| matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}'));
    if is_rtl { format!("\u{2068}{text}\u{2069}") } else { text }
}
