//! Prints the figures of docs/guide/normalisation.md and builds the word list inside the program, from ../shared/corpora.
//! Run with `cargo test --release -p data-pipeline --test suite -- --ignored --nocapture repair_figures::NAME`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_pipeline::normalize::{Changes, Profile};
use data_pipeline::repair::inversion;
use data_pipeline::repair::lexicon::{Learner, Lexicon, words};

/// `../shared/corpora`, or a loud line when it is absent.
fn corpora() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    if !path.exists() {
        eprintln!("SKIPPED: ../shared is absent");
    }
    path.exists().then_some(path)
}

struct Row {
    text: String,
    label: String,
    licence: String,
    url: String,
}

fn rows(corpora: &Path, source: &str) -> Vec<Row> {
    let file = std::fs::read_to_string(corpora.join(source).join("data.jsonl")).unwrap();
    file.lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let label = format!("{}_{}", field("lang"), field("script"));
            Row { text: field("text"), label, licence: field("licence"), url: field("url") }
        })
        .collect()
}

fn is_arabic(row: &Row) -> bool {
    row.label == "arb_Arab"
}

/// Sources of the built-in list with licences that allow to redistribute it.
const CLEAN: [&str; 6] =
    ["tashkeela", "arcd-wikipedia", "ud-treebanks", "android-l10n", "darija-phrases", "hassaniya-variants"];
const LICENCES: [&str; 5] = ["MIT", "Apache-2.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "Unicode-3.0"];

/// Words of laws and offices with a lam-alef inside, which the sources lack; each counts as often as a usual word.
const OFFICIAL: &str = "أعلاه لاسيما ولاسيما لائحة اللائحة لوائح اللوائح لأجل لأي لأغراض لأحكام لإلغاء استغلال الاستغلال \
    إخلال الإخلال دون إخلال معلل معللا مسؤولا ممثلا قابلا انطلاقا فلاحة الفلاحة فلاحية الفلاحية جلالة جلالته جلالتنا ولاية الولاية ولاة \
    بلاغ البلاغ إبلاغ تبليغ إعلام الإعلام إعلان الإعلان إصلاح الإصلاح صلاحية صلاحيات سلامة السلامة علامة علامات ملاحظة ملاحظات \
    ملاءمة حلول خلال خلاله خلالها خلافا خلاف الخلاف ثلاثة ثلاث ثلاثين علاقة علاقات علاوة أملاك الأملاك عملاء العملاء وكلاء الوكلاء \
    زملاء إقلاع إغلاق إطلاق إطلاع اطلاع الاطلاع استهلاك الاستهلاك استلام تلاميذ طلاب مجلات مقاولات المقاولات معاملات المعاملات حمولات \
    وكالات رسالات حالات الحالات مجالات المجالات كفالات إحالات صلاة كلام غلاف أغلال أقلام إسلام الإسلام الإسلامية إسلامية السلام سلاح \
    الأسلحة بلاد البلاد بلاستيك ملابس ملاك ملاكم كلا إلا ألا بلا فلا ولا لا";

#[test]
#[ignore = "writes src/repair/arabic-words.txt.zst; needs ../shared"]
fn word_list() {
    let Some(corpora) = corpora() else { return };
    let mut clean = Learner::default();
    for row in CLEAN.iter().flat_map(|source| rows(&corpora, source)) {
        if row.label.ends_with("_Arab") && LICENCES.contains(&row.licence.as_str()) {
            clean.add(&row.text, |_| true);
        }
    }
    let mut law = Learner::default();
    for row in rows(&corpora, "moroccan-law").iter().filter(|row| is_arabic(row)) {
        let found = inversion::Evidence::of(&row.text);
        let damaged = found.inverted > 0 || found.sound == 0;
        law.add(&row.text, |word| !damaged || inversion::is_certain(word));
    }
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for line in clean.list(1).lines().chain(law.list(4).lines()) {
        let (word, count) = line.split_once('\t').unwrap();
        *counts.entry(word.to_owned()).or_default() += count.parse::<u32>().unwrap();
    }
    for word in OFFICIAL.split_whitespace() {
        *counts.entry(word.to_owned()).or_default() += 20;
    }
    let mut list: Vec<_> = counts.into_iter().collect();
    list.sort_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
    let text: String = list.iter().map(|(word, count)| format!("{word}\t{count}\n")).collect();
    let packed = zstd::encode_all(text.as_bytes(), 19).unwrap();
    println!(
        "{} words, {} bytes, {} packed, BLAKE3 {}",
        list.len(),
        text.len(),
        packed.len(),
        blake3::hash(text.as_bytes())
    );
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/repair/arabic-words.txt.zst"), packed).unwrap();
}

fn plain(text: &str) -> String {
    Profile::default().apply(text, Some("arb_Arab"), &mut Changes::default()).into_owned()
}

/// Words of a text outside a list, and all its words.
fn outside(text: &str, lexicon: &Lexicon) -> (u64, u64) {
    words(text)
        .filter(|word| word.chars().count() > 1)
        .fold((0, 0), |(out, all), word| (out + u64::from(!lexicon.contains(&word)), all + 1))
}

/// A list from the clean Arabic of all sources but `left_out`.
fn judge_list(corpora: &Path, left_out: &str) -> Lexicon {
    let mut learner = Learner::default();
    for source in SOUND.iter().filter(|source| **source != left_out) {
        rows(corpora, source).iter().filter(|row| is_arabic(row)).for_each(|row| learner.add(&row.text, |_| true));
    }
    let mut lexicon = Lexicon::default();
    lexicon.read(learner.list(1).as_bytes()).unwrap();
    lexicon
}

const SOUND: [&str; 8] = [
    "tashkeela",
    "arcd-wikipedia",
    "ud-treebanks",
    "mediawiki-i18n",
    "android-l10n",
    "mozilla-www-l10n",
    "gettext-l10n",
    "wordpress-ary",
];

#[test]
#[ignore = "prints a table; needs ../shared"]
fn out_of_lexicon() {
    let Some(corpora) = corpora() else { return };
    let percent = |(out, all): (u64, u64)| 100.0 * out as f64 / all.max(1) as f64;
    for source in ["arcd-wikipedia", "ud-treebanks", "tashkeela", "mozilla-www-l10n"] {
        let lexicon = judge_list(&corpora, source);
        let rows = rows(&corpora, source);
        let sums = rows.iter().filter(|row| is_arabic(row)).map(|row| outside(&plain(&row.text), &lexicon));
        let sum = sums.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        println!("clean, list without it: {source:18} {:5.1} % of {} words", percent(sum), sum.1);
    }
    let lexicon = judge_list(&corpora, "");
    let (mut before, mut after, mut changes) = ((0, 0), (0, 0), Changes::default());
    let mut unknown: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows(&corpora, "moroccan-law").iter().filter(|row| is_arabic(row)) {
        let text = plain(&row.text);
        let repaired = inversion::repair(&text, Lexicon::built_in(), &mut changes);
        for (sum, text) in [(&mut before, text.as_str()), (&mut after, repaired.as_ref())] {
            let more = outside(text, &lexicon);
            *sum = (sum.0 + more.0, sum.1 + more.1);
        }
        for word in words(&repaired).filter(|word| !lexicon.contains(word)) {
            *unknown.entry(word).or_default() += 1;
        }
    }
    println!(
        "moroccan-law before {:.1} %, after {:.1} % of {} words; list of {} words",
        percent(before),
        percent(after),
        after.1,
        lexicon.len()
    );
    println!("{changes:?}");
    let mut unknown: Vec<_> = unknown.into_iter().collect();
    unknown.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    println!("{:?}", &unknown[..unknown.len().min(120)]);
    let alef: Vec<_> = unknown
        .iter()
        .filter(|(word, _)| word.contains("ال") && !word.starts_with("ال") || word.contains("األ"))
        .take(150)
        .collect();
    println!("{alef:?}");
}

/// Turns the lam-alefs of clean words round as PDF extraction does and counts which come back.
#[test]
#[ignore = "prints a table; needs ../shared"]
fn injected() {
    let Some(corpora) = corpora() else { return };
    for source in ["arcd-wikipedia", "ud-treebanks", "mediawiki-i18n", "mozilla-www-l10n"] {
        let rows: Vec<String> =
            rows(&corpora, source).iter().filter(|row| is_arabic(row)).map(|row| plain(&row.text)).collect();
        let (mut hurt, mut healed, mut harmed, mut all) = (0, 0, 0, 0);
        for page in rows.chunks(20) {
            let clean = page.join("\n");
            let broken = invert(&clean);
            let repaired = inversion::repair(&broken, Lexicon::built_in(), &mut Changes::default());
            for ((clean, broken), repaired) in words(&clean).zip(words(&broken)).zip(words(&repaired)) {
                all += 1;
                hurt += u64::from(clean != broken);
                healed += u64::from(clean != broken && clean == repaired);
                harmed += u64::from(clean == broken && clean != repaired);
            }
        }
        let percent = |part: u64, all: u64| 100.0 * part as f64 / all.max(1) as f64;
        println!(
            "{source:18} {all} words, {:.1} % turned round, {:.1} % of them put right, {:.2} % of the others harmed",
            percent(hurt, all),
            percent(healed, hurt),
            percent(harmed, all - hurt)
        );
    }
}

fn invert(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('ل', Some(alef @ ('ا' | 'أ' | 'إ' | 'آ'))) => {
                out.extend([alef, c]);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out.replace("الله", "هللا")
}

/// Documents that the repair would drop, by source and reason, with the beginning of a few.
#[test]
#[ignore = "prints a table; needs ../shared"]
fn garbage() {
    let Some(corpora) = corpora() else { return };
    for entry in std::fs::read_dir(&corpora).unwrap() {
        let source = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !corpora.join(&source).join("data.jsonl").exists() {
            continue;
        }
        let mut found: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
        let mut changes = Changes::default();
        let rows = rows(&corpora, &source);
        for row in &rows {
            let text = Profile::default().apply(&row.text, Some(&row.label), &mut Changes::default());
            let (text, verdict) = data_pipeline::repair::repair(&text, Some(&row.label), &mut changes);
            if let Some(reason) = verdict.garbage(0.5) {
                let start: String = text.chars().take(140).collect();
                let url = row.url.rsplit('/').next().unwrap_or_default();
                let line = format!("{:.2} {url} {}", verdict.score, start.replace('\n', " / "));
                found.entry((row.label.clone(), reason.name())).or_default().push(line);
            }
        }
        println!("{source}: {} rows, repair {changes:?}", rows.len());
        for ((label, reason), lines) in found {
            println!("  {label} {reason}: {}", lines.len());
            lines.iter().take(8).for_each(|line| println!("      {line}"));
        }
    }
}

/// Which ASCII letters follow each other in the languages written in Latin letters: the table of `repair::pairs`.
#[test]
#[ignore = "prints a table; needs ../shared"]
fn letter_pairs() {
    use unicode_normalization::UnicodeNormalization;
    use unicode_normalization::char::is_combining_mark;
    let Some(corpora) = corpora() else { return };
    let mut counts: BTreeMap<String, BTreeMap<[u8; 2], u64>> = BTreeMap::new();
    for entry in std::fs::read_dir(&corpora).unwrap() {
        let source = entry.unwrap().file_name().to_string_lossy().into_owned();
        if source == "doda-nc" || !corpora.join(&source).join("data.jsonl").exists() {
            continue;
        }
        for row in rows(&corpora, &source).iter().filter(|row| row.label.ends_with("_Latn")) {
            let plain: String = row.text.to_lowercase().nfd().filter(|c| !is_combining_mark(*c)).collect();
            let counts = counts.entry(row.label.clone()).or_default();
            for pair in plain.as_bytes().windows(2).filter(|pair| pair.iter().all(u8::is_ascii_lowercase)) {
                *counts.entry([pair[0], pair[1]]).or_default() += 1;
            }
        }
    }
    counts.retain(|_, pairs| pairs.values().sum::<u64>() >= 2000);
    let is_usual = |pair: [u8; 2]| {
        counts.values().any(|pairs| {
            let (count, all) = (pairs.get(&pair).copied().unwrap_or(0), pairs.values().sum::<u64>());
            count >= 3 && count as f64 >= 2e-4 * all as f64
        })
    };
    for first in b'a'..=b'z' {
        let followers: String = (b'a'..=b'z').filter(|second| is_usual([first, *second])).map(char::from).collect();
        println!("    \"{followers}\",");
    }
}

#[test]
#[ignore = "prints a table; needs ../shared"]
fn false_repairs() {
    let Some(corpora) = corpora() else { return };
    for (source, label) in [
        ("tashkeela", "arb_Arab"),
        ("arcd-wikipedia", "arb_Arab"),
        ("mediawiki-i18n", "arb_Arab"),
        ("android-l10n", "arb_Arab"),
        ("mozilla-www-l10n", "arb_Arab"),
        ("ud-treebanks", "arb_Arab"),
        ("doda-nc", "ary_Arab"),
        ("mediawiki-i18n", "ary_Arab"),
        ("hassaniya-variants", "mey_Arab"),
    ] {
        let (mut touched, mut all) = (0, 0);
        let mut changes = Changes::default();
        for row in rows(&corpora, source).iter().filter(|row| row.label == label) {
            let text = plain(&row.text);
            let repaired = inversion::repair(&text, Lexicon::built_in(), &mut changes);
            all += 1;
            if repaired != text {
                touched += 1;
                println!(
                    "    {} -> {}",
                    text.chars().take(120).collect::<String>(),
                    repaired.chars().take(120).collect::<String>()
                );
            }
        }
        println!("{source:20} {label} {touched} of {all} texts changed {changes:?}");
    }
}

/// CPU seconds of this process so far (user and system), from /proc/self/stat in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
#[ignore = "prints a table; needs ../shared and a release build"]
fn speed() {
    let Some(corpora) = corpora() else { return };
    for (source, label) in [
        ("mediawiki-i18n", "fra_Latn"),
        ("arcd-wikipedia", "arb_Arab"),
        ("tashkeela", "arb_Arab"),
        ("doda-nc", "ary_Latn"),
        ("doda-nc", "ary_Arab"),
        ("kabyle-sentences", "kab_Latn"),
        ("mediawiki-i18n", "zgh_Tfng"),
        ("moroccan-law", "arb_Arab"),
    ] {
        let texts: Vec<String> =
            rows(&corpora, source).into_iter().filter(|row| row.label == label).map(|row| row.text).collect();
        let megabytes = texts.iter().map(String::len).sum::<usize>() as f64 / 1e6;
        let normal: Vec<String> = texts
            .iter()
            .map(|text| Profile::default().apply(text, Some(label), &mut Changes::default()).into_owned())
            .collect();
        let time = |texts: &[String], work: &dyn Fn(&str) -> bool| {
            let (start, mut rounds, mut changed) = (cpu_seconds(), 0, 0);
            while cpu_seconds() - start < 1.0 {
                changed = texts.iter().filter(|text| work(text)).count();
                rounds += 1;
            }
            (megabytes * f64::from(rounds) / (cpu_seconds() - start), changed)
        };
        let profile = |text: &str| {
            matches!(Profile::default().apply(text, Some(label), &mut Changes::default()), std::borrow::Cow::Owned(_))
        };
        let repair = |text: &str| {
            let (text, _) = data_pipeline::repair::repair(text, Some(label), &mut Changes::default());
            matches!(text, std::borrow::Cow::Owned(_))
        };
        let (first, changed) = time(&texts, &profile);
        let (again, _) = time(&normal, &profile);
        let (repaired, _) = time(&normal, &repair);
        println!(
            "{source:18} {label} {megabytes:5.2} MB: profile {first:6.0} MB/CPU s ({changed} of {} texts changed), \
             on its own output {again:6.0}, repair and judgement {repaired:6.0}",
            texts.len()
        );
    }
}
