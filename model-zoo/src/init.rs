//! Owns how parameters are first filled; never touches devices, files or a global random state.

use rayon::prelude::*;

use crate::params::{Init, ParamSpec};
use crate::philox::Stream;

/// Elements a worker fills at a time. Element `i` is a pure function of (seed, name, `i`), so the cut is free.
const CHUNK_ELEMENTS: usize = 1 << 15;

/// The initial values of one parameter, row-major.
///
/// Element `i` is a pure function of (`seed`, `spec.name`, `i`): the values depend neither on the order in which
/// parameters are made nor on threads, processes or the platform. Normal values come from Philox4x32-10 and a
/// Box-Muller transform built on IEEE arithmetic alone ([`Stream::normals`]).
#[must_use]
pub fn initial_values(spec: &ParamSpec, seed: u64) -> Vec<f32> {
    let count = spec.num_elements();
    match spec.init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Uniform { bound } => {
            let stream = Stream::new(seed, &spec.name);
            filled(count, |counter| stream.uniforms(counter).map(|draw| bound * (2.0 * draw - 1.0)))
        }
        Init::Normal { std } => {
            let stream = Stream::new(seed, &spec.name);
            filled(count, |counter| stream.normals(counter).map(|draw| draw * std))
        }
    }
}

/// So many values, two from each counter.
fn filled(count: usize, draws: impl Fn(u64) -> [f64; 2] + Sync) -> Vec<f32> {
    let mut values = vec![0.0_f32; count];
    values.par_chunks_mut(CHUNK_ELEMENTS).enumerate().for_each(|(chunk, out)| {
        let first = (chunk * CHUNK_ELEMENTS / 2) as u64;
        for (counter, pair) in (first..).zip(out.chunks_mut(2)) {
            for (value, draw) in pair.iter_mut().zip(draws(counter)) {
                *value = draw as f32;
            }
        }
    });
    values
}

/// Scale of the projections that write into the residual stream: `std / sqrt(2 * num_layers)`, so that the variance
/// of the stream does not grow with depth (Radford et al. 2019, "Language models are unsupervised multitask
/// learners", section 2.3; there are two such projections a layer).
#[must_use]
pub fn residual_std(std: f64, num_layers: usize) -> f64 {
    std / (2.0 * num_layers as f64).sqrt()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn spec(name: &str, rows: usize, columns: usize) -> ParamSpec {
        ParamSpec { name: name.into(), shape: vec![rows, columns], init: Init::Normal { std: 0.02 }, decay: true }
    }

    #[test]
    fn values_do_not_depend_on_the_number_of_threads() {
        let spec = spec("model.layers.0.mlp.up_proj.weight", 301, 333);
        let fill = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| initial_values(&spec, 42))
        };
        let one = fill(1);
        assert_eq!(one, fill(3));
        assert_eq!(one, fill(7));
    }

    #[test]
    fn a_larger_tensor_starts_with_the_values_of_a_smaller_one() {
        let small = initial_values(&spec("w", 7, 9), 5);
        let large = initial_values(&spec("w", 400, 400), 5);
        assert_eq!(small[..], large[..63]);
    }

    #[test]
    fn residual_projections_shrink_with_depth() {
        assert!((residual_std(0.02, 8) - 0.005).abs() < 1e-12);
    }

    /// Golden: also computed by an independent implementation in another language. A change here changes every
    /// golden loss and every model trained from a seed.
    #[test]
    fn first_values_are_pinned() {
        let values = initial_values(&spec("model.embed_tokens.weight", 1, 6), 42);
        let bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, GOLDEN_BITS, "values: {values:?}");
        let other = initial_values(&spec("lm_head.weight", 1, 6), 42);
        assert_ne!(values, other);
    }

    const GOLDEN_BITS: [u32; 6] = [0xBCA9_83EA, 0xBBF0_2529, 0x3BC9_B343, 0x3BDE_4588, 0x3C99_A7E4, 0xBD10_497F];
}
