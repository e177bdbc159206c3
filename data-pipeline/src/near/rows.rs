//! Owns `data dedup`: duplicates among the rows of files, marked or left out; never knows a data set.
//!
//! The files are read two or three times instead of being held: once for keys, once more for signatures when paragraphs
//! were removed first, and once to write; one reading is enough to leave out exact duplicates alone. Rows are known by
//! file and row number, which every reading gives alike.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use serde_json::json;

use super::cluster::{Clusterer, Clusters};
use super::exact::SpillingKeys;
use super::paragraphs::{ParagraphBuffers, ParagraphConfig, ParagraphKey, Paragraphs, RepeatFinder, Repeats};
use super::signature::{Signature, Signer, SignerBuffers};
use super::sort::ExternalSort;
use super::table::{Table, TableWriter};
use super::{DedupError, MAX_DOCUMENTS, NearConfig};
use crate::dedup::KeyDigest;
use crate::filter::{self, Counts, Edits, FilterError, Inputs, Options, Outcome, Row, Stage, Summary, Watch};

/// What is looked for and what becomes of it.
#[derive(Debug, Clone)]
pub struct DedupPlan {
    /// Rows of a language with the same key form; the first stays.
    pub exact: bool,
    /// Paragraphs that repeat over all rows; they are removed from the texts.
    pub paragraphs: Option<ParagraphConfig>,
    /// Near duplicates.
    pub near: Option<NearConfig>,
    /// Leave duplicates out. Otherwise they stay and get a field `duplicate_of`.
    pub leave_out: bool,
    /// Memory for exact keys in MiB.
    pub memory_mib: usize,
    /// Names of the input files in `duplicate_of`; their paths when empty.
    pub names: Vec<String>,
}

impl DedupPlan {
    /// Whether a row stays is known when its turn comes, so the rows are written as they are read.
    pub fn is_one_reading(&self) -> bool {
        self.exact && self.leave_out && self.paragraphs.is_none() && self.near.is_none()
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DedupReport {
    /// Rows with the key form of an earlier row.
    pub exact: u64,
    /// Rows that resemble another.
    pub near: u64,
    /// Rows of which nothing is left without repeated paragraphs.
    pub emptied: u64,
    /// Paragraphs removed.
    pub paragraphs: u64,
    /// Different paragraphs among these.
    pub distinct_paragraphs: u64,
    /// Clusters by size, exact and near duplicates together.
    pub clusters: BTreeMap<usize, u64>,
    /// Pairs whose similarity was computed.
    pub compared: u64,
    /// Very large groups of candidates in which not every pair was compared.
    pub capped_buckets: u64,
}

/// Who is told what, beside the progress of each reading.
pub struct DedupWatch<'a> {
    /// Progress and stop flag of the readings.
    pub watch: Watch<'a>,
    /// Told what begins: "reading", "signatures", "clusters", "writing".
    pub phase: &'a dyn Fn(&'static str),
    /// Folder for scratch files, which have no name and vanish with the process.
    pub scratch: &'a Path,
}

/// Finds duplicates and writes the rows. `clusters` gets a JSON line for each cluster: the row that stays, the others.
///
/// # Errors
/// Inputs that cannot be read, or that change between two readings; outputs or scratch files that refuse; the stop flag.
pub fn dedup(
    (inputs, options): (&Inputs, &Options),
    plan: &DedupPlan,
    out: (&mut dyn Write, &Path),
    clusters: Option<(&mut dyn Write, &Path)>,
    watch: &DedupWatch<'_>,
) -> Result<(Summary, DedupReport), FilterError> {
    let mut numbering = Numbering::default();
    let mut found = Found::create(plan, watch.scratch);
    (watch.phase)("reading");
    let (out, out_path) = out;
    let mut summary = found.first_reading((inputs, options), plan, &mut numbering, (&mut *out, out_path), watch)?;
    numbering.close(inputs.paths().count());
    found.sort_out(plan, watch)?;
    if let (Some(near), Some(_)) = (&plan.near, &plan.paragraphs) {
        (watch.phase)("signatures");
        found.sign_what_stays((inputs, options), near, &numbering, watch)?;
    }
    (watch.phase)("clusters");
    found.cluster(watch)?;
    let names: Vec<String> = match plan.names.as_slice() {
        [] => inputs.paths().map(|path| path.display().to_string()).collect(),
        names => names.to_vec(),
    };
    let (clusters, path) = clusters.unzip();
    let sizes = found.groups(&numbering, &names, clusters, path.unwrap_or(Path::new("")), watch.scratch)?;
    if plan.is_one_reading() {
        out.flush().map_err(|source| FilterError::Io { path: out_path.to_owned(), action: "written", source })?;
        summary.kept -= found.exact;
        if found.exact > 0 {
            summary.dropped.add(EXACT, found.exact);
        }
        return Ok((summary, found.report(sizes, 0)));
    }
    (watch.phase)("writing");
    let first = summary;
    let stage = Writing { found: &found, numbering: &numbering, names: &names, plan, failure: Mutex::new(None) };
    let summary = filter::run(inputs, options, &stage, (out, out_path), watch.watch)?;
    if let Some(failure) = stage.failure.into_inner().ok().flatten() {
        return Err(failed(failure));
    }
    if (summary.rows, summary.text_bytes) != (first.rows, first.text_bytes) {
        return Err(FilterError::Stage("the inputs changed while they were read; run the command again".into()));
    }
    let emptied = summary.dropped.0.get(EMPTIED).copied().unwrap_or(0);
    Ok((summary, found.report(sizes, emptied)))
}

/// Reason of a row with the key form of an earlier one.
const EXACT: &str = "exact_duplicate";
/// Reason of a row of which nothing stays.
const EMPTIED: &str = "only_repeated_paragraphs";

fn failed(error: DedupError) -> FilterError {
    match error {
        DedupError::Stopped => FilterError::Stopped,
        other => FilterError::Stage(Box::new(other)),
    }
}

/// Rows of all files numbered in one sequence, with room for rows that cannot be used.
#[derive(Debug, Default)]
struct Numbering {
    /// Number before the first row of each file.
    bases: Vec<u32>,
    next: u32,
}

impl Numbering {
    /// Takes the next usable row; how many numbers before it stand for rows that cannot be used.
    fn meet(&mut self, file: usize, row: u64) -> Result<u32, DedupError> {
        self.close(file + 1);
        let base = self.bases.get(file).copied().unwrap_or(self.next);
        let number = u64::from(base) + row.saturating_sub(1);
        if number + 1 >= MAX_DOCUMENTS {
            return Err(DedupError::TooMany);
        }
        let gap = (number as u32).saturating_sub(self.next);
        self.next = number as u32 + 1;
        Ok(gap)
    }

    /// Gives every one of `files` its place.
    fn close(&mut self, files: usize) {
        while self.bases.len() < files {
            self.bases.push(self.next);
        }
    }

    fn number(&self, file: usize, row: u64) -> Option<u32> {
        u32::try_from(u64::from(*self.bases.get(file)?) + row.checked_sub(1)?).ok()
    }

    /// `FILE:ROW` of a number.
    fn name(&self, number: u32, names: &[String]) -> String {
        let file = self.bases.partition_point(|&base| base <= number).saturating_sub(1);
        let base = self.bases.get(file).copied().unwrap_or(0);
        format!("{}:{}", names.get(file).map_or("", String::as_str), number - base.min(number) + 1)
    }
}

/// One bit a row.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, number: u32) {
        let word = number as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (number % 64);
        }
    }

    fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// What a row adds in the first reading.
struct Seen {
    file: usize,
    row: u64,
    language: String,
    key: Option<u128>,
    paragraphs: Vec<ParagraphKey>,
    signature: Signature,
    /// The row itself, when one reading is all.
    line: String,
}

/// Everything that is known of the rows.
struct Found {
    keys: Option<SpillingKeys>,
    /// Keys with rows, to name the first row of a duplicate.
    firsts: ExternalSort<(u128, u32)>,
    languages: HashMap<String, usize>,
    is_exact: Bits,
    exact: u64,
    /// Exact duplicates with the row that stays.
    first_of: Option<Table<(u32, u32)>>,
    cutter: Option<Paragraphs>,
    finder: Option<RepeatFinder>,
    repeats: Option<Repeats>,
    clusterer: Option<Result<Clusterer, DedupError>>,
    clusters: Option<Clusters>,
}

impl Found {
    fn create(plan: &DedupPlan, scratch: &Path) -> Found {
        Found {
            keys: plan.exact.then(|| SpillingKeys::new(plan.memory_mib, scratch)),
            firsts: ExternalSort::new(scratch, plan.memory_mib.saturating_mul(1 << 20)),
            languages: HashMap::new(),
            is_exact: Bits::default(),
            exact: 0,
            first_of: None,
            cutter: plan.paragraphs.as_ref().map(Paragraphs::new),
            finder: plan.paragraphs.as_ref().map(|config| RepeatFinder::new(config, scratch)),
            repeats: None,
            clusterer: plan.near.as_ref().map(|config| Clusterer::create(config, scratch)),
            clusters: None,
        }
    }

    fn first_reading(
        &mut self,
        (inputs, options): (&Inputs, &Options),
        plan: &DedupPlan,
        numbering: &mut Numbering,
        (out, out_path): (&mut dyn Write, &Path),
        watch: &DedupWatch<'_>,
    ) -> Result<Summary, FilterError> {
        let one_reading = plan.is_one_reading();
        let signer = plan.near.as_ref().filter(|_| plan.paragraphs.is_none()).map(Signer::new);
        let cutter = self.cutter.clone();
        let map = |row: &Row<'_>, _: &mut Counts| {
            let label = row.label().unwrap_or_default();
            let key = plan.exact.then(|| KeyDigest::of(row.text, &mut String::new()).key);
            let paragraphs = cutter.as_ref().map(|c| c.keys(row.text, &label, &mut ParagraphBuffers::default()));
            let signature = signer.as_ref().map(|s| s.sign(row.text, &label, &mut SignerBuffers::default()));
            Seen {
                file: row.file,
                row: row.number,
                language: label,
                key,
                paragraphs: paragraphs.unwrap_or_default(),
                signature: signature.unwrap_or_default(),
                line: if one_reading { format!("{}\n", row.line()) } else { String::new() },
            }
        };
        let signs = signer.is_some();
        filter::read(
            inputs,
            options,
            &map,
            &mut |mut seen| {
                let gap = numbering.meet(seen.file, seen.row).map_err(failed)?;
                let (number, line) = (numbering.next - 1, std::mem::take(&mut seen.line));
                self.take(seen, number, gap, signs).map_err(failed)?;
                if self.is_exact.has(number) {
                    return Ok(());
                }
                let io = |source| FilterError::Io { path: out_path.to_owned(), action: "written", source };
                out.write_all(line.as_bytes()).map_err(io)
            },
            watch.watch,
        )
    }

    fn take(&mut self, seen: Seen, number: u32, gap: u32, signs: bool) -> Result<(), DedupError> {
        let mut repeats = false;
        if let (Some(keys), Some(key)) = (&mut self.keys, seen.key) {
            let next = self.languages.len();
            let language = *self.languages.entry(seen.language).or_insert(next);
            repeats = !keys.insert(language, key)?;
            // Two languages never share a row of `firsts`; the digest has bits to spare.
            self.firsts.push((key.wrapping_add(language as u128), number))?;
            if repeats {
                self.is_exact.set(number);
                self.exact += 1;
            }
        }
        if let Some(finder) = &mut self.finder {
            for _ in 0..gap {
                finder.add(&[])?;
            }
            finder.add(if repeats { &[] } else { &seen.paragraphs })?;
        }
        match &mut self.clusterer {
            Some(Ok(clusterer)) if signs => add_signature(clusterer, gap, &seen.signature, repeats),
            _ => Ok(()),
        }
    }

    /// Ends the searches that need no second reading.
    fn sort_out(&mut self, plan: &DedupPlan, watch: &DedupWatch<'_>) -> Result<(), FilterError> {
        self.keys = None;
        let memory = plan.memory_mib.saturating_mul(1 << 20);
        let firsts = std::mem::replace(&mut self.firsts, ExternalSort::new(watch.scratch, 0));
        if self.exact > 0 {
            self.first_of = Some(first_rows(firsts, memory, watch.scratch).map_err(failed)?);
        }
        if let Some(finder) = self.finder.take() {
            self.repeats = Some(finder.finish(watch.watch.stop).map_err(failed)?);
        }
        Ok(())
    }

    /// The second reading: signatures of the texts without their repeated paragraphs.
    fn sign_what_stays(
        &mut self,
        (inputs, options): (&Inputs, &Options),
        near: &NearConfig,
        numbering: &Numbering,
        watch: &DedupWatch<'_>,
    ) -> Result<(), FilterError> {
        let signer = Signer::new(near);
        let (is_exact, repeats, cutter) = (&self.is_exact, &self.repeats, &self.cutter);
        let map = |row: &Row<'_>, _: &mut Counts| -> Result<(u32, Signature), DedupError> {
            let Some(number) = numbering.number(row.file, row.number) else { return Err(DedupError::TooMany) };
            if is_exact.has(number) {
                return Ok((number, Signature::default()));
            }
            let label = row.label().unwrap_or_default();
            let sign = |text: &str| signer.sign(text, &label, &mut SignerBuffers::default());
            let gone = repeats.as_ref().map(|repeats| repeats.of(number)).transpose()?.unwrap_or_default();
            let signature = match (cutter, gone.as_slice()) {
                (Some(cutter), [_, ..]) => cutter.without(row.text, &gone).map(|text| sign(&text)),
                _ => Some(sign(row.text)),
            };
            Ok((number, signature.unwrap_or_default()))
        };
        let (mut next, clusterer) = (0, &mut self.clusterer);
        filter::read(
            inputs,
            options,
            &map,
            &mut |signed| {
                let (number, signature) = signed.map_err(failed)?;
                if let Some(Ok(clusterer)) = clusterer {
                    add_signature(clusterer, number.saturating_sub(next), &signature, false).map_err(failed)?;
                }
                next = number + 1;
                Ok(())
            },
            watch.watch,
        )?;
        Ok(())
    }

    fn cluster(&mut self, watch: &DedupWatch<'_>) -> Result<(), FilterError> {
        if let Some(clusterer) = self.clusterer.take() {
            let clusters = clusterer.and_then(|clusterer| clusterer.finish(&|_, _| (), watch.watch.stop));
            self.clusters = Some(clusters.map_err(failed)?);
        }
        Ok(())
    }

    /// The row that stays in the place of `number`, and how they are alike.
    fn duplicate_of(&self, number: u32) -> Result<Option<(u32, &'static str)>, DedupError> {
        let near = |number| self.clusters.as_ref().and_then(|clusters| clusters.duplicate_of(number));
        if !self.is_exact.has(number) {
            return Ok(near(number).map(|kept| (kept, "near")));
        }
        let mut first = number;
        if let Some(table) = &self.first_of {
            table.range(&(number, 0), |(at, other)| {
                first = if at == number { other } else { number };
                false
            })?;
        }
        Ok(Some((near(first).unwrap_or(first), "exact")))
    }

    /// Writes every cluster and counts them by size.
    fn groups(
        &self,
        numbering: &Numbering,
        names: &[String],
        mut out: Option<&mut dyn Write>,
        path: &Path,
        scratch: &Path,
    ) -> Result<BTreeMap<usize, u64>, FilterError> {
        let mut pairs: ExternalSort<(u32, u32)> = ExternalSort::new(scratch, 64 << 20);
        for number in 0..numbering.next {
            if let Some((kept, _)) = self.duplicate_of(number).map_err(failed)? {
                pairs.push((kept, number)).map_err(failed)?;
            }
        }
        let mut sorted = pairs.finish().map_err(failed)?;
        let mut sizes = BTreeMap::new();
        let mut group: Option<(u32, Vec<u32>)> = None;
        loop {
            let next = sorted.next().map_err(failed)?;
            match (&mut group, next) {
                (Some((kept, members)), Some((other, number))) if *kept == other => members.push(number),
                (_, next) => {
                    if let Some((kept, members)) = group.take() {
                        *sizes.entry(members.len() + 1).or_default() += 1;
                        let duplicates: Vec<String> =
                            members.iter().map(|&member| numbering.name(member, names)).collect();
                        let line = json!({
                            "kept": numbering.name(kept, names), "size": members.len() + 1, "duplicates": duplicates,
                        });
                        if let Some(out) = &mut out {
                            let io = |source| FilterError::Io { path: path.to_owned(), action: "written", source };
                            writeln!(out, "{line}").map_err(io)?;
                        }
                    }
                    let Some((kept, number)) = next else { return Ok(sizes) };
                    group = Some((kept, vec![number]));
                }
            }
        }
    }

    fn report(&self, clusters: BTreeMap<usize, u64>, emptied: u64) -> DedupReport {
        let of_clusters = |f: fn(&Clusters) -> u64| self.clusters.as_ref().map_or(0, f);
        let of_repeats = |f: fn(&Repeats) -> u64| self.repeats.as_ref().map_or(0, f);
        DedupReport {
            exact: self.exact,
            near: of_clusters(Clusters::num_duplicates),
            emptied,
            paragraphs: of_repeats(|repeats| repeats.removed),
            distinct_paragraphs: of_repeats(|repeats| repeats.distinct),
            clusters,
            compared: of_clusters(|clusters| clusters.compared),
            capped_buckets: of_clusters(|clusters| clusters.capped_buckets),
        }
    }
}

fn add_signature(clusterer: &mut Clusterer, gap: u32, signature: &Signature, repeats: bool) -> Result<(), DedupError> {
    let nothing = Signature::default();
    for _ in 0..gap {
        clusterer.add(&nothing)?;
    }
    clusterer.add(if repeats { &nothing } else { signature }).map(|_| ())
}

/// For each row whose key came up before, the first row that has it.
fn first_rows(
    firsts: ExternalSort<(u128, u32)>,
    memory: usize,
    scratch: &Path,
) -> Result<Table<(u32, u32)>, DedupError> {
    let mut sorted = firsts.finish()?;
    let mut repeated = ExternalSort::new(scratch, memory);
    let mut first: Option<(u128, u32)> = None;
    while let Some((key, number)) = sorted.next()? {
        match first {
            Some((other, first)) if other == key => repeated.push((number, first))?,
            _ => first = Some((key, number)),
        }
    }
    let (mut sorted, mut writer) = (repeated.finish()?, TableWriter::create(scratch)?);
    while let Some(record) = sorted.next()? {
        writer.push(record)?;
    }
    writer.finish()
}

/// The last reading.
struct Writing<'a> {
    found: &'a Found,
    numbering: &'a Numbering,
    names: &'a [String],
    plan: &'a DedupPlan,
    /// A scratch file that refused.
    failure: Mutex<Option<DedupError>>,
}

impl Stage for Writing<'_> {
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome {
        match self.judge(row, counts) {
            Ok(outcome) => outcome,
            Err(error) => {
                if let Ok(mut failure) = self.failure.lock() {
                    failure.get_or_insert(error);
                }
                Outcome::Drop("failed".into())
            }
        }
    }
}

impl Writing<'_> {
    fn judge(&self, row: &Row<'_>, counts: &mut Counts) -> Result<Outcome, DedupError> {
        let Some(number) = self.numbering.number(row.file, row.number) else { return Err(DedupError::TooMany) };
        if let Some((kept, kind)) = self.found.duplicate_of(number)? {
            let reason = if kind == "exact" { EXACT } else { "near_duplicate" };
            if self.plan.leave_out {
                return Ok(Outcome::Drop(reason.into()));
            }
            counts.add(reason, 1);
            let kept = self.numbering.name(kept, self.names);
            let set = vec![("duplicate_of".to_owned(), json!(kept)), ("duplicate_kind".to_owned(), json!(kind))];
            return Ok(Outcome::Keep(Edits { text: None, set }));
        }
        let gone = self.found.repeats.as_ref().map(|repeats| repeats.of(number)).transpose()?.unwrap_or_default();
        let (Some(cutter), [_, ..]) = (&self.found.cutter, gone.as_slice()) else {
            return Ok(Outcome::Keep(Edits::default()));
        };
        counts.add("repeated_paragraph", gone.len() as u64);
        let Some(text) = cutter.without(row.text, &gone) else {
            return Ok(Outcome::Drop(EMPTIED.into()));
        };
        let set = vec![("paragraphs_removed".to_owned(), json!(gone.len()))];
        Ok(Outcome::Keep(Edits { text: Some(text), set }))
    }
}
