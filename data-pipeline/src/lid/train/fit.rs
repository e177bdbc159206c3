//! Owns the fitting of one script's model: AdaGrad on the cross entropy, choice of n-grams, quantisation; never makes
//! training sentences.

use std::sync::atomic::{AtomicBool, Ordering};

use super::rng::Rng;
use crate::lid::model::{GROUP_FEATURES, HASH_BITS, Logits, MAX_LABELS, Model, softmax};

/// A training sentence as features.
#[derive(Debug, Clone)]
pub struct Example {
    /// Hash values of its n-grams, with repetition.
    pub ngrams: Vec<u32>,
    /// Marker features: number and value.
    pub markers: Vec<(u16, f32)>,
    /// Number of its label.
    pub label: u8,
}

/// How a model is fitted.
#[derive(Debug, Clone, Copy)]
pub struct FitConfig {
    /// N-grams that the finished model keeps.
    pub max_ngrams: usize,
    /// Passes over the examples with the kept n-grams.
    pub epochs: usize,
    /// Examples that an n-gram must occur in.
    pub min_examples: u32,
    /// AdaGrad step of an n-gram.
    pub rate: f32,
    /// Share of the examples shown without n-grams, so that markers carry weight of their own.
    pub markers_only: f64,
}

impl Default for FitConfig {
    fn default() -> Self {
        FitConfig { max_ngrams: 65_536, epochs: 4, min_examples: 4, rate: 0.12, markers_only: 0.2 }
    }
}

/// Share of the probability that a training label leaves to the others.
const LABEL_SMOOTHING: f32 = 0.02;
/// AdaGrad step of markers and bias, smaller as they are in every example.
const DENSE_RATE: f32 = 0.03;

struct State {
    rows: Vec<Logits>,
    squares: Vec<f32>,
    markers: Vec<Logits>,
    marker_squares: Vec<f32>,
    bias: Logits,
    bias_square: f32,
    labels: usize,
}

/// Fits a model for `labels` with `num_groups` marker groups. `home` names the label that each group speaks for.
/// Returns `None` when `stop` was raised.
pub fn fit(
    mut examples: Vec<Example>,
    labels: &[String],
    home: &[Option<usize>],
    config: &FitConfig,
    stop: &AtomicBool,
) -> Option<Model> {
    let mut rng = Rng(0x6C69_6431);
    shuffle(&mut examples, &mut rng);
    let counts = example_counts(&examples);
    let first = descend(&examples, 1 << HASH_BITS, labels.len(), home, config, 1, stop)?;
    let known = choose(&first.rows, &counts, config);
    let mut index = vec![u32::MAX; 1 << HASH_BITS];
    for (at, value) in known.iter().enumerate() {
        if let Some(slot) = index.get_mut(*value as usize) {
            *slot = at as u32;
        }
    }
    for example in &mut examples {
        example.ngrams.iter_mut().for_each(|n| *n = index.get(*n as usize).copied().unwrap_or(u32::MAX));
        example.ngrams.retain(|n| *n != u32::MAX);
    }
    let state = descend(&examples, known.len(), labels.len(), home, config, config.epochs, stop)?;
    Some(quantise(&state, &known, labels))
}

fn shuffle(examples: &mut [Example], rng: &mut Rng) {
    for at in (1..examples.len()).rev() {
        examples.swap(at, rng.below(at + 1));
    }
}

/// In how many examples each hash value occurs.
fn example_counts(examples: &[Example]) -> Vec<u32> {
    let mut counts = vec![0u32; 1 << HASH_BITS];
    let mut last = vec![u32::MAX; 1 << HASH_BITS];
    for (number, example) in examples.iter().enumerate() {
        for value in &example.ngrams {
            if let (Some(count), Some(last)) = (counts.get_mut(*value as usize), last.get_mut(*value as usize))
                && *last != number as u32
            {
                *last = number as u32;
                *count += 1;
            }
        }
    }
    counts
}

/// The n-grams that weigh most: spread of the weights times the root of the number of examples.
fn choose(rows: &[Logits], counts: &[u32], config: &FitConfig) -> Vec<u32> {
    let mut ranked: Vec<(f32, u32)> = Vec::new();
    for (value, (row, count)) in rows.iter().zip(counts).enumerate() {
        if *count >= config.min_examples {
            let top = row.iter().copied().fold(f32::MIN, f32::max);
            let low = row.iter().copied().fold(f32::MAX, f32::min);
            ranked.push(((top - low) * (*count as f32).sqrt(), value as u32));
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    ranked.truncate(config.max_ngrams);
    let mut known: Vec<u32> = ranked.into_iter().map(|(_, value)| value).collect();
    known.sort_unstable();
    known
}

fn descend(
    examples: &[Example],
    num_rows: usize,
    labels: usize,
    home: &[Option<usize>],
    config: &FitConfig,
    epochs: usize,
    stop: &AtomicBool,
) -> Option<State> {
    let mut state = State {
        rows: vec![[0.0; MAX_LABELS]; num_rows],
        squares: vec![1e-4; num_rows],
        markers: starting_markers(home),
        marker_squares: vec![1.0; home.len() * GROUP_FEATURES],
        bias: [0.0; MAX_LABELS],
        bias_square: 1.0,
        labels,
    };
    let mut rng = Rng(0x6C69_6432);
    for epoch in 0..epochs {
        let slower = 1.0 - 0.7 * epoch as f32 / epochs.max(1) as f32;
        for (number, example) in examples.iter().enumerate() {
            if number % 4096 == 0 && stop.load(Ordering::Relaxed) {
                return None;
            }
            let markers_only = rng.chance(config.markers_only) && !example.markers.is_empty();
            state.learn(example, markers_only, config.rate * slower, DENSE_RATE * slower);
        }
    }
    Some(state)
}

/// Marker weights before training: a marker speaks for its own label.
fn starting_markers(home: &[Option<usize>]) -> Vec<Logits> {
    let mut markers = vec![[0.0; MAX_LABELS]; home.len() * GROUP_FEATURES];
    for (group, label) in home.iter().enumerate() {
        for (seen, weight) in [(0, 1.0), (1, 0.8), (2, 0.6), (3, 2.0)] {
            if let (Some(label), Some(row)) = (label, markers.get_mut(group * GROUP_FEATURES + seen))
                && let Some(w) = row.get_mut(*label)
            {
                *w = weight;
            }
        }
    }
    markers
}

impl State {
    fn learn(&mut self, example: &Example, markers_only: bool, rate: f32, dense_rate: f32) {
        let ngrams: &[u32] = if markers_only { &[] } else { &example.ngrams };
        let value = 1.0 / (ngrams.len().max(1) as f32).sqrt();
        let mut sums = [0f32; MAX_LABELS];
        for row in ngrams.iter().filter_map(|n| self.rows.get(*n as usize)) {
            for (sum, weight) in sums.iter_mut().zip(row) {
                *sum += weight;
            }
        }
        let mut logits = self.bias;
        logits.iter_mut().zip(&sums).for_each(|(logit, sum)| *logit += value * sum);
        for (feature, strength) in &example.markers {
            if let Some(row) = self.markers.get(usize::from(*feature)) {
                logits.iter_mut().zip(row).for_each(|(logit, weight)| *logit += strength * weight);
            }
        }
        let mut slope = softmax(&logits, self.labels, 1.0);
        let rest = LABEL_SMOOTHING / self.labels as f32;
        for (label, s) in slope.iter_mut().enumerate().take(self.labels) {
            *s -= rest + if label == usize::from(example.label) { 1.0 - LABEL_SMOOTHING } else { 0.0 };
        }
        let norm: f32 = slope.iter().map(|s| s * s).sum();
        let square = norm * value * value;
        for n in ngrams {
            let at = *n as usize;
            if let (Some(row), Some(total)) = (self.rows.get_mut(at), self.squares.get_mut(at)) {
                *total += square;
                let step = rate * value / total.sqrt();
                row.iter_mut().zip(&slope).for_each(|(weight, s)| *weight -= step * s);
            }
        }
        for (feature, strength) in &example.markers {
            let at = usize::from(*feature);
            if let (Some(row), Some(total)) = (self.markers.get_mut(at), self.marker_squares.get_mut(at)) {
                *total += norm * strength * strength;
                let step = dense_rate * strength / total.sqrt();
                row.iter_mut().zip(&slope).for_each(|(weight, s)| *weight -= step * s);
            }
        }
        self.bias_square += norm;
        let step = dense_rate / self.bias_square.sqrt();
        self.bias.iter_mut().zip(&slope).for_each(|(bias, s)| *bias -= step * s);
    }
}

/// Weights as 8-bit integers with one scale; each row is centred first, which changes no probability.
fn quantise(state: &State, known: &[u32], labels: &[String]) -> Model {
    let centred = |row: &Logits| {
        let used = row.get(..labels.len()).unwrap_or_default();
        let mean = used.iter().sum::<f32>() / labels.len().max(1) as f32;
        let mut centred = [0f32; MAX_LABELS];
        centred.iter_mut().zip(used).for_each(|(to, from)| *to = from - mean);
        centred
    };
    let rows: Vec<Logits> = state.rows.iter().map(centred).collect();
    let mut sizes: Vec<f32> = rows.iter().flatten().map(|w| w.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    // The few weights beyond the 99.99th percentile are cut off.
    let largest = sizes.get(sizes.len().saturating_sub(1 + sizes.len() / 10_000)).copied().unwrap_or(1.0).max(1e-6);
    let scale = largest / 127.0;
    let quantised = |row: &Logits| row.map(|w| (w / scale).round().clamp(-127.0, 127.0) as i8);
    let mut model = Model::new(labels.to_vec(), known, rows.iter().map(quantised).collect());
    model.scale = scale;
    model.bias = state.bias;
    model.markers.clone_from(&state.markers);
    model
}
