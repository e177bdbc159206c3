//! Owns the checks that every engine of collectives must pass; never touches how an engine is made.
//!
//! All ranks call [`run`] in lockstep. Values are a function of rank and index, so each rank knows what the others pass
//! and what must come out, to the bit where the order of addition is fixed.

use super::collective::{Collective, Order, slice_of};
use super::error::ClusterError;

/// Lengths around the alignment of slices and the limits of engines.
const LENGTHS: [usize; 11] = [0, 1, 2, 3, 1023, 1024, 1025, 4096, 4097, 70_001, 300_000];

/// Error of a fast sum relative to the sum of magnitudes.
const FAST_TOLERANCE: f64 = 1e-6;

/// What one check found on this rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Whether it held.
    pub passed: bool,
    /// What was found where it did not.
    pub detail: String,
}

pub(super) type Outcome = Result<Result<(), String>, ClusterError>;

type Body = fn(&mut dyn Collective) -> Outcome;

/// Runs every check. After a check that the engine itself ends with an error the rest is left out: the ranks are no
/// longer in lockstep.
pub fn run(collective: &mut dyn Collective) -> Vec<Check> {
    let checks: [(&'static str, Body); 12] = [
        ("barrier", barrier),
        ("all_reduce, exact: the bits of the tree", all_reduce_exact),
        ("all_reduce, fast: within 1e-6, the same bits everywhere", all_reduce_fast),
        ("all_reduce twice: the same bits", all_reduce_repeats),
        ("reduce_scatter, exact: the bits of the tree", reduce_scatter_exact),
        ("reduce_scatter, fast: within 1e-6", reduce_scatter_fast),
        ("all_gather", all_gather),
        ("NaN and infinity pass through", not_finite),
        ("all_gather_bytes of uneven lengths", all_gather_bytes),
        ("broadcast from every rank", broadcast),
        ("send and recv", send_recv),
        ("order of mixed operations", mixed),
    ];
    report(checks.into_iter().map(|(name, check)| (name, check(collective))))
}

/// Names what each check found, up to the first that the engine itself ended.
pub(super) fn report(outcomes: impl Iterator<Item = (&'static str, Outcome)>) -> Vec<Check> {
    let mut report = Vec::new();
    for (name, outcome) in outcomes {
        let (ended, detail) = match outcome {
            Ok(Ok(())) => (false, None),
            Ok(Err(detail)) => (false, Some(detail)),
            Err(error) => (true, Some(error.to_string())),
        };
        report.push(Check { name, passed: detail.is_none(), detail: detail.unwrap_or_default() });
        if ended {
            break;
        }
    }
    report
}

/// A value of many magnitudes and both signs, so that sums in another order have other bits.
pub(super) fn value(rank: usize, index: usize, salt: u64) -> f32 {
    let mut x = (rank as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (index as u64) ^ (salt << 48);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    let mantissa = (x >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
    mantissa * 10f32.powi((x % 7) as i32 - 3)
}

pub(super) fn vector(rank: usize, len: usize, salt: u64) -> Vec<f32> {
    (0..len).map(|index| value(rank, index, salt)).collect()
}

/// The fold of `gradient_sum.rs` over one value a rank.
fn tree(leaves: impl Iterator<Item = f32>) -> f32 {
    let mut nodes: Vec<(u32, f32)> = Vec::new();
    for leaf in leaves {
        let mut node = (0, leaf);
        while let Some((height, left)) = nodes.pop_if(|(height, _)| *height == node.0) {
            node = (height + 1, left + node.1);
        }
        nodes.push(node);
    }
    let last = nodes.pop().map_or(0.0, |(_, value)| value);
    nodes.into_iter().rev().fold(last, |right, (_, left)| left + right)
}

pub(super) fn expect_exact(got: &[f32], start: usize, world: usize, salt: u64) -> Result<(), String> {
    for (index, &sum) in (start..).zip(got) {
        let expected = tree((0..world).map(|rank| value(rank, index, salt)));
        if sum.to_bits() != expected.to_bits() {
            return Err(format!("element {index} is {sum:e}, the tree gives {expected:e}"));
        }
    }
    Ok(())
}

pub(super) fn expect_close(got: &[f32], start: usize, world: usize, salt: u64) -> Result<(), String> {
    for (index, &sum) in (start..).zip(got) {
        let values = || (0..world).map(|rank| f64::from(value(rank, index, salt)));
        let (expected, magnitude) = (values().sum::<f64>(), values().map(f64::abs).sum::<f64>());
        let error = (f64::from(sum) - expected).abs();
        if error.is_nan() || error > FAST_TOLERANCE * magnitude {
            return Err(format!("element {index} is {sum:e}, the sum is {expected:e}"));
        }
    }
    Ok(())
}

/// Whether all ranks hold the same bits.
pub(super) fn expect_same_everywhere(collective: &mut dyn Collective, values: &[f32]) -> Outcome {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let digests = collective.all_gather_bytes(blake3::hash(&bytes).as_bytes())?;
    let other = digests.iter().position(|d| Some(d) != digests.first());
    Ok(other.map_or(Ok(()), |rank| Err(format!("rank {rank} has other bits than rank 0"))))
}

/// Runs `check` for every length until one fails; all ranks go through all lengths all the same.
fn for_lengths(mut check: impl FnMut(usize, u64) -> Outcome) -> Outcome {
    let mut result = Ok(());
    for (salt, len) in (0..).zip(LENGTHS) {
        let outcome = check(len, salt)?;
        result = result.and(outcome.map_err(|detail| format!("{len} values: {detail}")));
    }
    Ok(result)
}

fn barrier(collective: &mut dyn Collective) -> Outcome {
    for _ in 0..3 {
        collective.barrier()?;
    }
    Ok(Ok(()))
}

fn all_reduce_exact(collective: &mut dyn Collective) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    for_lengths(|len, salt| {
        let mut values = vector(rank, len, salt);
        collective.all_reduce(&mut values, Order::Exact)?;
        Ok(expect_exact(&values, 0, world, salt))
    })
}

fn all_reduce_fast(collective: &mut dyn Collective) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    for_lengths(|len, salt| {
        let mut values = vector(rank, len, salt);
        collective.all_reduce(&mut values, Order::Fast)?;
        let same = expect_same_everywhere(collective, &values)?;
        Ok(expect_close(&values, 0, world, salt).and(same))
    })
}

fn all_reduce_repeats(collective: &mut dyn Collective) -> Outcome {
    let rank = collective.rank();
    let mut result = Ok(());
    for order in [Order::Exact, Order::Fast] {
        let (mut first, mut second) = (vector(rank, 100_003, 99), vector(rank, 100_003, 99));
        collective.all_reduce(&mut first, order)?;
        collective.all_reduce(&mut second, order)?;
        let same = first.iter().map(|v| v.to_bits()).eq(second.iter().map(|v| v.to_bits()));
        result = result.and(if same { Ok(()) } else { Err(format!("{order:?}: the second sum has other bits")) });
    }
    Ok(result)
}

fn reduce_scatter_exact(collective: &mut dyn Collective) -> Outcome {
    reduce_scatter(collective, Order::Exact, expect_exact)
}

fn reduce_scatter_fast(collective: &mut dyn Collective) -> Outcome {
    reduce_scatter(collective, Order::Fast, expect_close)
}

fn reduce_scatter(
    collective: &mut dyn Collective,
    order: Order,
    expect: fn(&[f32], usize, usize, u64) -> Result<(), String>,
) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    for_lengths(|len, salt| {
        let mut values = vector(rank, len, salt);
        collective.reduce_scatter(&mut values, order)?;
        let own = slice_of(len, world, rank);
        Ok(expect(values.get(own.clone()).unwrap_or_default(), own.start, world, salt))
    })
}

fn all_gather(collective: &mut dyn Collective) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    for_lengths(|len, salt| {
        let mut values = vec![f32::NAN; len];
        let own = slice_of(len, world, rank);
        for (index, slot) in (own.start..).zip(values.get_mut(own.clone()).unwrap_or_default()) {
            *slot = value(rank, index, salt);
        }
        collective.all_gather(&mut values)?;
        for owner in 0..world {
            let slice = slice_of(len, world, owner);
            for (index, got) in (slice.start..).zip(values.get(slice.clone()).unwrap_or_default()) {
                if got.to_bits() != value(owner, index, salt).to_bits() {
                    return Ok(Err(format!("element {index} of rank {owner} is {got:e}")));
                }
            }
        }
        Ok(Ok(()))
    })
}

fn not_finite(collective: &mut dyn Collective) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    let mut result = Ok(());
    for (order, len) in [(Order::Exact, 100), (Order::Exact, 10_000), (Order::Fast, 100_000)] {
        let mut values = vec![1.0f32; len];
        if let (true, [first, second, ..]) = (rank == world - 1, values.as_mut_slice()) {
            (*first, *second) = (f32::NAN, f32::NEG_INFINITY);
        }
        collective.all_reduce(&mut values, order)?;
        let as_due = match values.as_slice() {
            [first, second, rest @ ..] => {
                first.is_nan() && *second == f32::NEG_INFINITY && rest.iter().all(|&v| v == world as f32)
            }
            _ => false,
        };
        result = result.and(if as_due { Ok(()) } else { Err(format!("{order:?}, {len} values: something was lost")) });
    }
    Ok(result)
}

fn message(rank: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ (rank * 97)) as u8).collect()
}

fn all_gather_bytes(collective: &mut dyn Collective) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    let mut result = Ok(());
    for unit in [0, 1, 3000, 300_000] {
        // Rank 0 always passes nothing.
        let all = collective.all_gather_bytes(&message(rank, rank * unit))?;
        let good = all.len() == world && all.iter().enumerate().all(|(r, bytes)| *bytes == message(r, r * unit));
        result = result.and(if good { Ok(()) } else { Err(format!("unit of {unit} bytes: other bytes came")) });
    }
    Ok(result)
}

fn broadcast(collective: &mut dyn Collective) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    let mut result = Ok(());
    for root in 0..world {
        for len in [0, 1, 1_000_003] {
            let mut bytes = if rank == root { message(root, len) } else { message(rank, 17) };
            collective.broadcast(&mut bytes, root)?;
            let good = bytes == message(root, len);
            result =
                result.and(if good { Ok(()) } else { Err(format!("{len} bytes from rank {root}: other bytes came")) });
        }
    }
    Ok(result)
}

fn send_recv(collective: &mut dyn Collective) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    let mut result = Ok(());
    for from in 0..world {
        let to = (from + 1) % world;
        for len in [0, 1, 2_000_003] {
            if from == to {
                continue;
            }
            if rank == from {
                collective.send(to, &message(from, len))?;
            } else if rank == to {
                let good = collective.recv(from)? == message(from, len);
                let wrong = || Err(format!("{len} bytes from rank {from}: other bytes came"));
                result = result.and(if good { Ok(()) } else { wrong() });
            }
        }
    }
    collective.barrier()?;
    Ok(result)
}

fn mixed(collective: &mut dyn Collective) -> Outcome {
    let (rank, world) = (collective.rank(), collective.world());
    let mut result = Ok(());
    for turn in 0..20usize {
        let mut values = vector(rank, 100 + turn, turn as u64);
        collective.all_reduce(&mut values, Order::Exact)?;
        let mut word = if rank == turn % world { vec![turn as u8] } else { Vec::new() };
        collective.broadcast(&mut word, turn % world)?;
        let all = collective.all_gather_bytes(&[rank as u8])?;
        let good = word == [turn as u8] && all.iter().enumerate().all(|(r, b)| *b == [r as u8]);
        let good = if good { Ok(()) } else { Err(format!("turn {turn}: other bytes came")) };
        result = result.and(expect_exact(&values, 0, world, turn as u64)).and(good);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::collective::Alone;

    #[test]
    fn a_world_of_one_conforms() {
        let report = run(&mut Alone);
        assert_eq!(report.len(), 12);
        assert!(report.iter().all(|c| c.passed), "{report:?}");
    }

    #[test]
    fn a_lazy_engine_does_not() {
        struct Lazy;
        impl Collective for Lazy {
            fn rank(&self) -> usize {
                0
            }
            fn world(&self) -> usize {
                2
            }
            fn name(&self) -> &'static str {
                "lazy"
            }
            fn all_reduce(&mut self, _: &mut [f32], _: Order) -> Result<(), ClusterError> {
                Ok(())
            }
            fn reduce_scatter(&mut self, _: &mut [f32], _: Order) -> Result<(), ClusterError> {
                Ok(())
            }
            fn all_gather(&mut self, _: &mut [f32]) -> Result<(), ClusterError> {
                Ok(())
            }
            fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ClusterError> {
                Ok(vec![bytes.to_vec(), Vec::new()])
            }
            fn broadcast(&mut self, _: &mut Vec<u8>, _: usize) -> Result<(), ClusterError> {
                Ok(())
            }
            fn send(&mut self, _: usize, _: &[u8]) -> Result<(), ClusterError> {
                Ok(())
            }
            fn recv(&mut self, _: usize) -> Result<Vec<u8>, ClusterError> {
                Ok(Vec::new())
            }
        }
        let passed: Vec<_> = run(&mut Lazy).into_iter().filter(|c| c.passed).map(|c| c.name).collect();
        assert_eq!(passed, ["barrier", "all_reduce twice: the same bits"]);
    }
}
