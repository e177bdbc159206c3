//! Owns the data card as one HTML page: charts drawn in place, no scripts, nothing from elsewhere; never counts anything
//! itself.
//!
//! Names may be in any script: each stands in an element of its own with its direction taken from its first letter, so
//! that an Arabic name does not reorder the figures beside it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::facts::{BUCKETS, CardFacts, Lengths, language_name, stage_of};
use crate::stats::Tally;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,'Noto Sans','Noto Sans Arabic','Noto Sans Tifinagh',sans-serif;max-width:960px;\
margin:2em auto;padding:0 1em;color:#1d2430;background:#fff}\
h1{font-size:1.6em;margin-bottom:.2em}h2{font-size:1.15em;margin-top:2.2em;border-bottom:1px solid #dfe3ea}\
table{border-collapse:collapse;width:100%}td,th{padding:.2em .9em .2em 0;text-align:start;vertical-align:top}\
th{font-weight:600;color:#4a5568;border-bottom:1px solid #cbd2dc}td.n,th.n{text-align:end;\
font-variant-numeric:tabular-nums;white-space:nowrap}td.b{width:34%}svg{display:block;width:100%}\
svg.bar{height:14px;margin-top:.25em}svg text{font-size:11px;fill:#4a5568}small{color:#6b7688}\
code{font-size:.85em;overflow-wrap:anywhere}.tiles{display:flex;flex-wrap:wrap;gap:1em;margin:1.2em 0}\
.tile{border:1px solid #dfe3ea;border-radius:6px;padding:.6em 1em;min-width:7em}.tile b{display:block;font-size:1.35em}\
details{margin:.6em 0}summary{cursor:pointer;color:#4a5568}.wide{overflow-x:auto}\
@media(prefers-color-scheme:dark){body{background:#14181f;color:#e3e8f0}h2,.tile{border-color:#333b49}\
th,small,svg text,summary{color:#9aa7ba;fill:#9aa7ba}th{border-color:#333b49}}";

/// Colours of bars: kept, held out, dropped.
const KEPT: &str = "#2f7d6b";
const HELD_OUT: &str = "#d49a2a";
const DROPPED: &str = "#b5473c";

/// Rows of a table beyond this are folded away.
const FOLD: usize = 25;

/// Renders the page. Equal facts give equal bytes.
pub(super) fn render(facts: &CardFacts<'_>) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    _ = write_page(&mut page, facts);
    page
}

fn write_page(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    writeln!(page, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Data card</title>")?;
    writeln!(page, "<meta name=\"viewport\" content=\"width=device-width\">\n<style>{STYLE}</style>")?;
    writeln!(page, "<h1>Data card</h1>\n<small>Data set <code>{}</code></small>", facts.manifest.id())?;
    tiles(page, facts)?;
    languages(page, facts)?;
    sources(page, facts)?;
    licences(page, facts)?;
    dropped(page, facts)?;
    lengths(page, facts)?;
    extras(page, facts)?;
    removals(page, facts)?;
    streams(page, facts)?;
    files(page, facts)?;
    writeln!(page, "<h2>How it was made</h2>\n<ul>")?;
    for line in &facts.method {
        writeln!(page, "<li>{}</li>", with_code(line))?;
    }
    writeln!(page, "</ul>\n</html>")
}

fn tiles(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    let total = &facts.stats.total;
    writeln!(page, "<div class=\"tiles\">")?;
    for (name, value) in [
        ("documents", total.documents),
        ("held out", total.validation_documents),
        ("words", total.words),
        ("tokens", total.tokens()),
        ("bytes", total.bytes),
        ("languages", facts.manifest.languages.len() as u64),
        ("rows read", total.rows),
        ("rows dropped", total.num_dropped()),
    ] {
        writeln!(page, "<div class=\"tile\"><b>{}</b>{name}</div>", grouped(value))?;
    }
    writeln!(page, "</div>")
}

fn languages(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    let sums = facts.stats.by_language();
    writeln!(page, "<h2>Languages</h2>\n{}", legend(&[("training tokens", KEPT), ("held-out tokens", HELD_OUT)]))?;
    tally_table(page, "language", &sums, &|label| {
        let (own, english) = language_name(label);
        let own = if own.is_empty() { String::new() } else { format!(" <bdi dir=\"auto\">{own}</bdi>") };
        let english = if english.is_empty() { String::new() } else { format!("<br><small>{english}</small>") };
        format!("<b>{}</b>{own}{english}", escaped(label))
    })
}

fn sources(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    writeln!(page, "<h2>Sources</h2>")?;
    tally_table(page, "source", &facts.stats.by_source(), &bdi)
}

/// One row a name, the largest first, with its tokens as a bar.
fn tally_table(
    page: &mut String,
    column: &str,
    sums: &BTreeMap<String, Tally>,
    name: &dyn Fn(&str) -> String,
) -> std::fmt::Result {
    let mut rows: Vec<_> = sums.iter().filter(|(_, tally)| tally.rows > 0).collect();
    rows.sort_by_key(|(label, tally)| (std::cmp::Reverse(tally.tokens()), *label));
    let most = rows.iter().map(|(_, tally)| tally.tokens()).max().unwrap_or(0);
    let head = ["documents", "duplicates", "other drops", "words", "tokens", "tokens/word"];
    let rows = rows.into_iter().map(|(label, tally)| {
        let duplicates = tally.duplicates();
        let per_word = tally.tokens() as f64 / tally.words.max(1) as f64;
        let cells = [tally.documents, duplicates, tally.num_dropped() - duplicates, tally.words, tally.tokens()];
        let mut cells: Vec<String> = cells.into_iter().map(grouped).collect();
        cells.push(format!("{per_word:.2}"));
        let bar = bar(&[(tally.train_tokens, KEPT), (tally.validation_tokens, HELD_OUT)], most);
        (name(label), cells, bar)
    });
    table(page, column, &head, rows.collect())
}

/// A table whose last column is a chart; what is beyond [`FOLD`] rows is folded away.
fn table(page: &mut String, column: &str, head: &[&str], rows: Vec<(String, Vec<String>, String)>) -> std::fmt::Result {
    let mut parts = rows.chunks(FOLD.max(1));
    let write = |page: &mut String, rows: &[(String, Vec<String>, String)]| -> std::fmt::Result {
        write!(page, "<div class=\"wide\"><table><tr><th>{column}</th>")?;
        head.iter().try_for_each(|name| write!(page, "<th class=\"n\">{name}</th>"))?;
        writeln!(page, "<th></th></tr>")?;
        for (name, cells, bar) in rows {
            write!(page, "<tr><td>{name}</td>")?;
            cells.iter().try_for_each(|cell| write!(page, "<td class=\"n\">{cell}</td>"))?;
            writeln!(page, "<td class=\"b\">{bar}</td></tr>")?;
        }
        writeln!(page, "</table></div>")
    };
    if let Some(first) = parts.next() {
        write(page, first)?;
    }
    let rest: Vec<_> = parts.flatten().cloned().collect();
    if rest.is_empty() {
        return Ok(());
    }
    writeln!(page, "<details><summary>{} more</summary>", rest.len())?;
    write(page, &rest)?;
    writeln!(page, "</details>")
}

fn licences(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    writeln!(page, "<h2>Licences</h2>")?;
    let mut rows: Vec<_> = facts.stats.licences.iter().collect();
    rows.sort_by_key(|(name, tally)| (std::cmp::Reverse(tally.words), *name));
    let most = rows.iter().map(|(_, tally)| tally.words).max().unwrap_or(0);
    let rows = rows.into_iter().map(|(name, tally)| {
        let tokens = facts.manifest.licences.get(name).map_or(0, |counts| counts.tokens);
        let cells = [tally.documents, tally.words, tokens].map(grouped).to_vec();
        (bdi(name), cells, bar(&[(tally.words, KEPT)], most))
    });
    table(page, "licence", &["documents", "words", "tokens"], rows.collect())
}

fn dropped(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    let total = &facts.stats.total;
    writeln!(page, "<h2>What was left out</h2>")?;
    writeln!(
        page,
        "<p>{} rows were read; {} became documents, {} were dropped, {} of them as broken records into \
         <code>quarantine.jsonl</code>.</p>",
        grouped(total.rows),
        grouped(total.documents),
        grouped(total.num_dropped()),
        grouped(facts.stats.quarantined)
    )?;
    let mut rows: Vec<_> = total.dropped.iter().map(|(reason, &rows)| (stage_of(reason), reason, rows)).collect();
    rows.sort_by_key(|(stage, reason, rows)| (*stage, std::cmp::Reverse(*rows), *reason));
    let most = rows.iter().map(|(_, _, rows)| *rows).max().unwrap_or(0);
    let rows = rows.into_iter().map(|(stage, reason, rows)| {
        let share = format!("{:.2} %", 100.0 * rows as f64 / total.rows.max(1) as f64);
        (format!("{stage}: {}", bdi(reason)), vec![grouped(rows), share], bar(&[(rows, DROPPED)], most))
    });
    table(page, "stage and reason", &["rows", "of all rows"], rows.collect())
}

fn lengths(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    writeln!(page, "<h2>Lengths of documents</h2>")?;
    histogram(page, &facts.all_lengths())?;
    let rows = facts.lengths.iter().map(|(label, lengths)| {
        let mean = format!("{:.0}", lengths.mean());
        (bdi(label), vec![grouped(lengths.documents), mean, grouped(lengths.longest)], sparkline(lengths))
    });
    table(page, "language", &["documents", "mean tokens", "longest"], rows.collect())
}

/// Documents by length: one column a power of two.
fn histogram(page: &mut String, lengths: &Lengths) -> std::fmt::Result {
    let Some((first, last)) = used(lengths) else { return Ok(()) };
    let count = last - first + 1;
    let most = lengths.buckets.iter().copied().max().unwrap_or(1).max(1);
    let (width, height) = (720.0, 170.0);
    let step = width / count as f64;
    writeln!(
        page,
        "<svg viewBox=\"0 0 {width} {}\" role=\"img\" aria-label=\"Documents by number of tokens\">",
        height + 48.0
    )?;
    for (column, at) in (first..=last).enumerate() {
        let documents = lengths.buckets.get(at).copied().unwrap_or(0);
        let tall = height * documents as f64 / most as f64;
        let (x, y) = (column as f64 * step, 14.0 + height - tall);
        let middle = x + step / 2.0;
        writeln!(
            page,
            "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{KEPT}\"/>",
            x + step * 0.08,
            step * 0.84
        )?;
        writeln!(
            page,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            y - 3.0,
            short(documents)
        )?;
        writeln!(
            page,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height + 28.0,
            short(1 << at)
        )?;
    }
    writeln!(
        page,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">tokens of a document, from</text>\n</svg>",
        width / 2.0,
        height + 44.0
    )
}

/// First and last bucket that hold anything.
fn used(lengths: &Lengths) -> Option<(usize, usize)> {
    let filled = |at: &usize| lengths.buckets.get(*at).is_some_and(|&documents| documents > 0);
    Some(((0..BUCKETS).find(filled)?, (0..BUCKETS).rev().find(filled)?))
}

fn sparkline(lengths: &Lengths) -> String {
    let most = lengths.buckets.iter().copied().max().unwrap_or(1).max(1);
    let mut svg = "<svg class=\"bar\" viewBox=\"0 0 200 14\" preserveAspectRatio=\"none\">".to_owned();
    let columns = 20;
    for (at, &documents) in lengths.buckets.iter().take(columns).enumerate().filter(|(_, documents)| **documents > 0) {
        let tall = (13.0 * documents as f64 / most as f64).max(0.6);
        _ = write!(
            svg,
            "<rect x=\"{}\" y=\"{:.1}\" width=\"9\" height=\"{tall:.1}\" fill=\"{KEPT}\"/>",
            at * 10,
            14.0 - tall
        );
    }
    svg.push_str("</svg>");
    svg
}

fn extras(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    for extra in &facts.extras {
        writeln!(page, "<h2>{}</h2>", escaped(&extra.title))?;
        let number = |value: &String| value.parse::<f64>().ok().filter(|n| *n >= 0.0);
        let most = extra.rows.iter().filter_map(|(_, value)| number(value)).fold(0.0, f64::max);
        let rows = extra.rows.iter().map(|(name, value)| {
            let shown = value.parse::<u64>().map_or_else(|_| bdi(value), grouped);
            let bar = number(value).map(|n| bar(&[(n as u64, KEPT)], most as u64)).unwrap_or_default();
            (bdi(name), vec![shown], bar)
        });
        table(page, "", &["count"], rows.collect())?;
    }
    Ok(())
}

fn removals(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    if facts.removals.is_empty() {
        return Ok(());
    }
    writeln!(page, "<h2>Taken down later</h2>")?;
    let most = facts.removals.iter().map(|removal| removal.documents).max().unwrap_or(0);
    let rows = facts.removals.iter().map(|removal| {
        let reason = removal.reason.as_deref().map(|why| format!("<br>{}", bdi(why))).unwrap_or_default();
        let named = bdi(&removal.selection.join(", "));
        let old = escaped(removal.old.get(..12).unwrap_or(&removal.old));
        let name = format!("{}<br><small>{named}; before: <code>{old}</code></small>{reason}", escaped(&removal.time));
        let cells = [removal.documents, removal.tokens].map(grouped).to_vec();
        (name, cells, bar(&[(removal.documents, DROPPED)], most))
    });
    table(page, "when, what and why", &["documents", "tokens"], rows.collect())
}

fn streams(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    writeln!(page, "<h2>Languages of each source</h2>")?;
    let components = &facts.stats.components;
    let most = components.iter().map(|component| component.tally.tokens()).max().unwrap_or(0);
    let rows = components.iter().filter(|component| component.tally.documents > 0).map(|component| {
        let tally = &component.tally;
        let licences: Vec<String> = component.licences.keys().map(|name| bdi(name)).collect();
        let name = format!(
            "{} <b>{}</b><br><small>{}</small>",
            escaped(&component.lang),
            bdi(&component.source),
            licences.join(", ")
        );
        let cells = [tally.documents, tally.words, tally.train_tokens, tally.validation_tokens].map(grouped).to_vec();
        (name, cells, bar(&[(tally.train_tokens, KEPT), (tally.validation_tokens, HELD_OUT)], most))
    });
    table(page, "stream", &["documents", "words", "training tokens", "held-out tokens"], rows.collect())
}

fn files(page: &mut String, facts: &CardFacts<'_>) -> std::fmt::Result {
    let files = &facts.stats.files;
    writeln!(page, "<h2>Files read</h2>\n<details><summary>{} files, with their digests</summary>", files.len())?;
    writeln!(
        page,
        "<div class=\"wide\"><table><tr><th>file</th><th class=\"n\">bytes</th><th class=\"n\">rows</th>\
         <th class=\"n\">documents</th><th>BLAKE3</th></tr>"
    )?;
    for file in files {
        let damage = file.damage.as_ref().map(|what| format!("<br><small>damaged {}</small>", escaped(what)));
        writeln!(
            page,
            "<tr><td>{}{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td><code>{}</code></td></tr>",
            bdi(&file.file),
            damage.unwrap_or_default(),
            grouped(file.bytes),
            grouped(file.rows),
            grouped(file.documents),
            escaped(&file.blake3)
        )?;
    }
    writeln!(page, "</table></div></details>")
}

/// Parts of a bar end to end, against the largest of the table.
fn bar(parts: &[(u64, &str)], most: u64) -> String {
    let mut svg = "<svg class=\"bar\" viewBox=\"0 0 200 14\" preserveAspectRatio=\"none\">".to_owned();
    let mut x = 0.0;
    for (value, colour) in parts.iter().filter(|(value, _)| *value > 0) {
        let width = (200.0 * *value as f64 / most.max(1) as f64).max(0.8);
        _ = write!(svg, "<rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>");
        x += width;
    }
    svg.push_str("</svg>");
    svg
}

fn legend(entries: &[(&str, &str)]) -> String {
    let mut text = "<p><small>".to_owned();
    for (name, colour) in entries {
        _ = write!(
            text,
            "<svg style=\"display:inline;width:.9em;height:.9em\" viewBox=\"0 0 9 9\"><rect width=\"9\" height=\"9\" \
             fill=\"{colour}\"/></svg> {name} &nbsp; "
        );
    }
    text.push_str("</small></p>");
    text
}

/// Text in an element that takes its direction from its first letter and keeps it to itself.
fn bdi(text: &str) -> String {
    format!("<bdi dir=\"auto\">{}</bdi>", escaped(text))
}

/// Text whose parts between backquotes are code.
fn with_code(line: &str) -> String {
    let parts = line.split('`').enumerate();
    parts.map(|(i, part)| if i % 2 == 1 { format!("<code>{}</code>", escaped(part)) } else { escaped(part) }).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Data may hold codes that reorder or hide what stands beside them.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// `12 345`, with narrow spaces that do not break.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(c);
    }
    text
}

/// `1.5k`, `23M`.
fn short(value: u64) -> String {
    let scaled = |by: f64, unit: &str| {
        let value = value as f64 / by;
        if value < 10.0 && value.fract() > 0.05 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
    };
    match value {
        0..1_000 => value.to_string(),
        1_000..1_000_000 => scaled(1e3, "k"),
        1_000_000..1_000_000_000 => scaled(1e6, "M"),
        _ => scaled(1e9, "G"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_element() {
        assert_eq!(bdi("<b>\u{202e}x"), "<bdi dir=\"auto\">&lt;b&gt; x</bdi>");
        assert_eq!(with_code("a `<b>` c"), "a <code>&lt;b&gt;</code> c");
    }

    #[test]
    fn numbers_are_short_or_grouped() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!([0, 999, 1_500, 2_048, 23_000_000].map(short), ["0", "999", "1.5k", "2k", "23M"]);
    }
}
