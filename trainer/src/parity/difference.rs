//! Owns measuring how far computed values are from expected ones; never decides what is computed.

use super::Table;

/// Largest difference of logits and hidden states, as a part of the largest value: a few hundred roundings of f32.
pub const RELATIVE_TOLERANCE: f64 = 5e-5;

/// The largest value seen and where; unlike `f64::max` it never forgets a NaN.
#[derive(Debug, Default)]
pub struct Worst<T> {
    pub value: f64,
    pub place: T,
}

impl<T> Worst<T> {
    /// Keeps `value` if it is the largest so far, or the first that is no number.
    pub fn see(&mut self, value: f64, place: impl FnOnce() -> T) {
        if !self.value.is_nan() && (value.is_nan() || value > self.value) {
            *self = Self { value, place: place() };
        }
    }
}

/// How far two lists of vectors, one a token, are apart.
pub struct Difference {
    worst: Worst<usize>,
    peak: f64,
    tokens: usize,
}

impl Difference {
    /// Compares the tokens that `counts`. Lists of different lengths are infinitely far apart.
    pub fn between(expected: &[f32], found: &[f32], counts: impl Fn(usize) -> bool, tokens: usize) -> Self {
        let mut result = Self { worst: Worst::default(), peak: 0.0, tokens: 0 };
        if expected.len() != found.len() || tokens == 0 {
            result.worst.value = f64::INFINITY;
            return result;
        }
        let width = expected.len() / tokens;
        for (token, (expected, found)) in expected.chunks(width).zip(found.chunks(width)).enumerate() {
            if !counts(token) {
                continue;
            }
            result.tokens += 1;
            for (expected, found) in expected.iter().zip(found) {
                result.worst.see((f64::from(*expected) - f64::from(*found)).abs(), || token);
                result.peak = result.peak.max(f64::from(expected.abs()));
            }
        }
        result
    }

    pub fn largest(&self) -> f64 {
        self.worst.value
    }

    pub fn relative(&self) -> f64 {
        self.worst.value / self.peak
    }

    pub fn detail(&self) -> String {
        format!("{} tokens, largest value {:.3}, worst at token {}", self.tokens, self.peak, self.worst.place)
    }

    pub fn report(&self, check: &str, tolerance: f64, table: &mut Table<'_>) {
        table.add(check, self.worst.value, tolerance, self.detail());
        table.add(format!("{check}, relative"), self.relative(), RELATIVE_TOLERANCE, String::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_only_where_tokens_count() {
        let (expected, found) = ([1.0, 2.0, 3.0, -8.0], [1.0, 2.5, 9.0, -8.0]);
        let all = Difference::between(&expected, &found, |_| true, 2);
        assert_eq!((all.worst.value, all.worst.place, all.peak), (6.0, 1, 8.0));
        let first = Difference::between(&expected, &found, |token| token == 0, 2);
        assert_eq!((first.worst.value, first.tokens, first.relative()), (0.5, 1, 0.25));
        assert!(Difference::between(&expected, &[1.0, f32::NAN, 3.0, -8.0], |_| true, 2).worst.value.is_nan());
        assert!(Difference::between(&expected, &[1.0], |_| true, 2).worst.value.is_infinite());
    }
}
