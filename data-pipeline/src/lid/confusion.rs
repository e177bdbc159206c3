//! Owns the confusion table of an identifier on labelled texts; never reads files.

use std::collections::BTreeMap;
use std::fmt::Write;

/// How often which label was taken for which.
#[derive(Debug, Default, Clone)]
pub struct Confusion {
    counts: BTreeMap<(String, String), u64>,
}

/// Quality of one label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelScore {
    /// Texts with this label.
    pub texts: u64,
    /// Of the texts called so, the share that is so.
    pub precision: f64,
    /// Of the texts that are so, the share called so.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl Confusion {
    /// Counts one text.
    pub fn add(&mut self, truth: &str, answer: &str) {
        *self.counts.entry((truth.to_owned(), answer.to_owned())).or_default() += 1;
    }

    /// Adds the counts of another table.
    pub fn merge(&mut self, other: &Confusion) {
        for (pair, count) in &other.counts {
            *self.counts.entry(pair.clone()).or_default() += count;
        }
    }

    /// Labels that texts have.
    pub fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = self.counts.keys().map(|(truth, _)| truth.as_str()).collect();
        labels.dedup();
        labels
    }

    /// Quality of one label.
    pub fn score(&self, label: &str) -> LabelScore {
        let sum = |of: &dyn Fn(&(String, String)) -> bool| -> u64 {
            self.counts.iter().filter(|(pair, _)| of(pair)).map(|(_, count)| count).sum()
        };
        let texts = sum(&|(truth, _)| truth == label);
        let called = sum(&|(_, answer)| answer == label);
        let right = sum(&|(truth, answer)| truth == label && answer == label);
        let ratio = |of: u64| if of == 0 { 0.0 } else { right as f64 / of as f64 };
        let (precision, recall) = (ratio(called), ratio(texts));
        let f1 = if right == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
        LabelScore { texts, precision, recall, f1 }
    }

    /// A Markdown table: one row a label, with what its texts were called.
    pub fn table(&self) -> String {
        let mut table =
            String::from("| label | texts | precision | recall | F1 | called otherwise |\n|---|---|---|---|---|---|\n");
        for label in self.labels() {
            let s = self.score(label);
            let mut others: Vec<(&str, u64)> = self
                .counts
                .iter()
                .filter(|((truth, answer), _)| truth == label && answer != label)
                .map(|((_, answer), count)| (answer.as_str(), *count))
                .collect();
            others.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
            let others: Vec<String> =
                others.iter().take(6).map(|(answer, count)| format!("{answer} {count}")).collect();
            let (p, r, f) = (s.precision, s.recall, s.f1);
            // Writing to a string does not fail.
            let _ = writeln!(table, "| {label} | {} | {p:.4} | {r:.4} | {f:.4} | {} |", s.texts, others.join(", "));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_follow_from_the_counts() {
        let mut confusion = Confusion::default();
        for (truth, answer) in [("a", "a"), ("a", "a"), ("a", "b"), ("b", "b")] {
            confusion.add(truth, answer);
        }
        let (a, b) = (confusion.score("a"), confusion.score("b"));
        assert_eq!((a.texts, a.precision), (3, 1.0));
        assert!((a.recall - 2.0 / 3.0).abs() < 1e-9 && (b.precision - 0.5).abs() < 1e-9);
        assert!(confusion.table().contains("| a | 3 | 1.0000 | 0.6667 | 0.8000 | b 1 |"));
    }
}
