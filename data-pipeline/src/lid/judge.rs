//! Owns the judgement of a text by the models of its scripts: sentences, code-switch spans, the sum for the document;
//! never touches files.

use super::cache::{self, Words};
use super::lexicon::Lexicon;
use super::model::{Logits, MAX_LABELS, MarkerCounts, Model, WordScore, softmax};
use super::roles::Roles;
use super::script::{NUM_SCRIPTS, Script};
use super::tally::{Tally, UND, ZXX};
use super::words::{Sentence, Word, sentences};
use super::{Identification, switch};

/// Lowest probability of Darija without a marker of it in phrases of up to [`SHORT_WORDS`] words of Arabic letters, which
/// often have no room for a function word.
const SHORT_ARY_WITHOUT_MARKER: f32 = 0.5;
const SHORT_WORDS: usize = 6;
const ALGERIAN_WITHOUT_MARKER: f32 = 0.8;
/// Words with foreign letters that are enough, when they are a quarter of all: one may be a name.
const STRANGE_WORDS: usize = 2;
/// Short vowels for each letter of a vocalised text: every row of `tashkeela` has as many, no row of a dialect.
const VOCALISED: f32 = 0.4;
/// What a vocalised sentence, and each word that ends in tanwin, say for Standard Arabic, as logits.
const FOR_VOCALISED: f32 = 5.0;
const TANWIN: f32 = 1.5;
const MOST_FOR_TANWIN: f32 = 3.0;
/// Factor on the logits of Latin text without a marker word of its label: names, single words, languages nobody
/// trained. The label stays, its probability falls.
const WITHOUT_MARKER: f32 = 0.5;

/// The models of all scripts with the marker lists they were trained with.
#[derive(Debug)]
pub struct Judge {
    lexicon: Lexicon,
    models: Vec<Option<(Model, Roles)>>,
    /// Number of the first label of each script in [`Self::labels`].
    offsets: [usize; NUM_SCRIPTS],
    labels: Vec<String>,
    /// Its number in the caches of words.
    owner: u64,
}

/// A run of words of one script in one sentence.
#[derive(Debug, Default)]
pub struct Run {
    /// Words with their scores.
    pub words: Vec<(Word, WordScore, u32)>,
    /// Whether a word of another script stands right before.
    gaps: Vec<bool>,
    sums: [i32; MAX_LABELS],
    known: u32,
    total: u32,
    markers: MarkerCounts,
    /// Marker groups of words of more than one letter: `s` and `n` stand in texts of any language.
    proven: u32,
    /// Marker groups of all words.
    seen: u32,
    letters: u32,
}

impl Run {
    fn clear(&mut self) {
        self.words.clear();
        self.gaps.clear();
        (self.sums, self.known, self.total, self.letters) = ([0; MAX_LABELS], 0, 0, 0);
        (self.proven, self.seen) = (0, 0);
        self.markers.clear();
    }

    fn add(&mut self, word: &Word, score: WordScore, mask: u32, letters: u32, gap: bool) {
        for (sum, one) in self.sums.iter_mut().zip(&score.sums) {
            *sum += i32::from(*one);
        }
        self.known += u32::from(score.known);
        self.total += u32::from(score.total);
        self.letters += letters;
        self.markers.add(mask);
        self.seen |= mask;
        self.proven |= if letters > 1 { mask } else { 0 };
        self.words.push((*word, score, mask));
        self.gaps.push(gap);
    }
}

impl Judge {
    /// A judge of trained models.
    pub fn new(lexicon: Lexicon, trained: Vec<(Script, Model)>) -> Judge {
        let mut judge = Judge {
            lexicon,
            models: vec![None; NUM_SCRIPTS],
            offsets: [0; NUM_SCRIPTS],
            labels: Vec::new(),
            owner: cache::new_owner(),
        };
        judge.labels.extend([UND.to_owned(), ZXX.to_owned()]);
        for (script, model) in trained {
            if let (Some(offset), Some(slot)) =
                (judge.offsets.get_mut(script as usize), judge.models.get_mut(script as usize))
            {
                *offset = judge.labels.len();
                // `und_Latn` of the models is `und` outside.
                let outer = model.labels.iter().map(|l| if l.starts_with(UND) { UND } else { l.as_str() });
                judge.labels.extend(outer.map(str::to_owned));
                let roles = Roles::new(&model, judge.lexicon.groups(script));
                *slot = Some((model, roles));
            }
        }
        judge
    }

    /// The labels that an answer may have.
    pub fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// The language of `text`.
    pub fn identify(&self, text: &str) -> Identification {
        let mut tally = Tally::new(self.labels.len());
        let mut run = Run::default();
        cache::with_words(self.owner, |cached| {
            sentences(text, |sentence| {
                tally.note(sentence);
                if !tally.is_code(sentence) {
                    self.sentence(sentence, cached, &mut run, &mut tally);
                }
            });
        });
        tally.finish(&self.labels)
    }

    fn sentence(&self, sentence: &Sentence, cached: &mut Words<'_>, run: &mut Run, tally: &mut Tally) {
        for (script, letters) in Script::ALL.into_iter().zip(sentence.script_letters) {
            if letters == 0 {
                continue;
            }
            let mut next = 0;
            let of_script = sentence.words.iter().enumerate().filter(|(_, word)| word.script == script);
            let of_script = of_script.map(|(at, word)| (word, at != std::mem::replace(&mut next, at + 1)));
            let Some((model, roles)) = self.models.get(script as usize).and_then(Option::as_ref) else {
                of_script.for_each(|(word, gap)| tally.unknown(word, sentence.letters(word).len() as u32, gap));
                continue;
            };
            run.clear();
            for (word, gap) in of_script {
                let letters = sentence.letters(word);
                let (score, groups) =
                    cached.get(letters, || (model.score_word(letters), self.lexicon.find(script, letters)));
                run.add(word, score, groups, letters.len() as u32, gap);
            }
            self.run(script, (model, roles), (run, sentence), tally);
        }
    }

    fn run(
        &self,
        script: Script,
        (model, roles): (&Model, &Roles),
        (run, sentence): (&Run, &Sentence),
        tally: &mut Tally,
    ) {
        let mut logits = model.logits(&run.sums, run.known, &run.markers);
        if script == Script::Arab
            && let Some(logit) = roles.standard.first().and_then(|standard| logits.get_mut(standard))
        {
            *logit += vowel_evidence(sentence, run.letters);
        }
        let words = run.words.len() as u32;
        let mut sharpness = model.sharpness_of(words);
        let guess = best_of(&logits);
        // `n`, `d` and `s` make up much of Kabyle, and little text of another language looks like it.
        let shown = if roles.kabyle.has(guess) { run.seen } else { run.proven };
        if script == Script::Latn && roles.own(guess) & shown == 0 {
            sharpness *= WITHOUT_MARKER;
        }
        let mut probabilities = softmax(&logits, model.labels.len(), sharpness);
        damp(&mut probabilities, model.labels.len(), run.known, run.total);
        match script {
            Script::Arab => {
                demand_marker(roles, &mut probabilities, run.proven, run.words.len());
                mind_letters(roles, &mut probabilities, run);
            }
            Script::Latn => demand_algerian(roles, &mut probabilities, run.proven),
            _ => {}
        }
        let offset = self.offsets.get(script as usize).copied().unwrap_or(0);
        let best = best_of(&probabilities);
        let spans = switch::spans((model, roles), (&run.words, &run.gaps), &logits, best);
        let label = switch::matrix_language(roles, &spans, best);
        if label != best {
            probabilities.swap(label, best);
        }
        tally.add(offset, &probabilities, run.letters, model.labels.len());
        for span in spans {
            tally.push_span(offset + span.label, (span.start, span.end), span.letters, span.gap);
        }
    }
}

/// What written vowels say for Standard Arabic, as a logit: dialects are written without, but for a sign here and there.
fn vowel_evidence(sentence: &Sentence, letters: u32) -> f32 {
    let is_vocalised = sentence.vowels as f32 >= VOCALISED * letters as f32;
    let endings = (TANWIN * sentence.tanwin as f32).min(MOST_FOR_TANWIN);
    endings + if is_vocalised { FOR_VOCALISED } else { 0.0 }
}

/// Without a marker word of its own a dialect has to be all but certain: rare words of Standard Arabic look like it.
fn demand_marker(roles: &Roles, probabilities: &mut Logits, seen: u32, words: usize) {
    let best = best_of(probabilities);
    let is_short_darija = roles.moroccan.has(best) && words <= SHORT_WORDS;
    let needed = if is_short_darija { SHORT_ARY_WITHOUT_MARKER } else { roles.needed(best) };
    let own = roles.own(best);
    if own & seen == 0 && own != 0 && probabilities.get(best).is_some_and(|p| *p < needed) {
        roles.standard.first().into_iter().for_each(|standard| probabilities.swap(best, standard));
    }
}

/// Letters of Urdu, Sindhi, Uyghur or Kurdish in several words are no spelling of Arabic, whatever the rest looks like.
fn mind_letters(roles: &Roles, probabilities: &mut Logits, run: &Run) {
    let strange = run.words.iter().filter(|(.., groups)| groups & roles.strange != 0).count();
    if let (true, Some(other)) = (strange >= STRANGE_WORDS && 4 * strange >= run.words.len(), roles.others.first()) {
        let best = best_of(probabilities);
        probabilities.swap(best, other);
    }
}

/// Darija in Latin letters without an Algerian word is taken for Moroccan, unless it is all but certain.
fn demand_algerian(roles: &Roles, probabilities: &mut Logits, seen: u32) {
    let best = best_of(probabilities);
    let is_doubtful = || probabilities.get(best).is_some_and(|p| *p < ALGERIAN_WITHOUT_MARKER);
    if roles.algerian.has(best) && roles.own(best) & seen == 0 && is_doubtful() {
        roles.moroccan.first().into_iter().for_each(|moroccan| probabilities.swap(best, moroccan));
    }
}

/// Words whose n-grams the model has hardly seen say little, whatever the few known ones say.
fn damp(probabilities: &mut Logits, labels: usize, known: u32, total: u32) {
    let seen = known as f32 / total.max(1) as f32;
    let weight = (seen / 0.3).min(1.0);
    let even = 1.0 / labels.max(1) as f32;
    for p in probabilities.iter_mut().take(labels) {
        *p = *p * weight + even * (1.0 - weight);
    }
}

/// Number of the largest value.
pub fn best_of(values: &Logits) -> usize {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if *value > values.get(best).copied().unwrap_or(f32::MIN) {
            best = at;
        }
    }
    best
}
