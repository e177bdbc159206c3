//! Owns the data card: the statistics of a dataset as one page for people; never counts anything itself.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::config::{PrepareConfig, TokenizerConfig};
use crate::dedup::Dedup;
use crate::normalize::Normalize;
use crate::stats::{Stats, Tally};

/// File name of the card inside a dataset.
pub const CARD_FILE: &str = "DATACARD.md";

/// Renders the card. Equal statistics and configurations give equal bytes.
pub(crate) fn render(stats: &Stats, config: &PrepareConfig, vocab_size: usize) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    _ = write(&mut page, stats, config, vocab_size);
    page
}

fn write(page: &mut String, stats: &Stats, config: &PrepareConfig, vocab_size: usize) -> std::fmt::Result {
    let total = &stats.total;
    writeln!(page, "# Data card\n")?;
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
    writeln!(page, "\n## Dropped rows\n\n| reason | rows |\n|---|---:|")?;
    for (reason, rows) in &total.dropped {
        writeln!(page, "| {} | {rows} |", cell(reason))?;
    }
    files(page, stats)?;
    method(page, config, vocab_size)
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

fn method(page: &mut String, config: &PrepareConfig, vocab_size: usize) -> std::fmt::Result {
    writeln!(page, "\n## Method\n")?;
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
    let tokenizer = match &config.tokenizer {
        TokenizerConfig::Path(_) => "given",
        TokenizerConfig::Train(_) => "trained on the training documents",
    };
    writeln!(page, "- Normalisation: {normalize}.")?;
    writeln!(page, "- Duplicates: {dedup}.")?;
    writeln!(page, "- Licences allowed: {}; non-commercial ones are {commercial}.", licences.join(", "))?;
    writeln!(
        page,
        "- Validation: {} of each language by a digest of the text, and up to a tenth while there are fewer than {} documents.",
        config.validation.fraction, config.validation.min_documents
    )?;
    writeln!(page, "- Tokenizer: {tokenizer}, {vocab_size} tokens.")?;
    writeln!(page, "- Words are what white space divides; tokens include the special tokens around each document.")?;
    writeln!(page, "- Personal data was not looked for.")
}

/// Text of a table cell: no line ends, no column marks.
fn cell(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "\\|")
}
