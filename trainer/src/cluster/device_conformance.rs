//! Owns the checks that every engine of collectives over device tensors must pass; never touches how one is made.
//!
//! The rules are those of [`super::conformance`]: all ranks call [`run`] in lockstep, values are a function of rank
//! and index. What a tensor holds is looked at only through the device's own computation.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::collective::Order;
use super::conformance::{Check, Outcome, expect_close, expect_exact, expect_same_everywhere, report, value, vector};
use super::device_collective::{DeviceCollective, len_of};

/// Lengths of the tensors of a bucket; none is a multiple of what slices are cut at, one is empty.
const BUCKET: [usize; 6] = [1, 1023, 0, 70_001, 3, 4097];

/// Lengths of regions.
const REGIONS: [usize; 4] = [1, 5, 1024, 50_003];

/// Elements of a tensor that is long under way.
const LONG: usize = 500_003;

type Body = fn(&mut dyn DeviceCollective, &Device) -> Outcome;

/// Runs every check with tensors on `device`. After a check that the engine itself ends with an error the rest is left
/// out: the ranks are no longer in lockstep.
pub fn run(engine: &mut dyn DeviceCollective, device: &Device) -> Vec<Check> {
    let checks: [(&'static str, Body); 12] = [
        ("buckets, exact: the bits of the tree", bucket_exact),
        ("buckets, fast: within 1e-6, the same bits everywhere", bucket_fast),
        ("regions summed, exact: the bits of the tree", regions_exact),
        ("regions summed, fast: within 1e-6", regions_fast),
        ("regions gathered", gathered),
        ("broadcast of a tensor from every rank", broadcast),
        ("bfloat16 keeps its type and its sums", bfloat16),
        ("NaN and infinity pass through tensors", not_finite),
        ("tickets redeemed in another order", out_of_order),
        ("work before and after needs no waiting", ordered_with_work),
        ("memory under way is nobody else's", memory_under_way),
        ("device and host collectives mixed", mixed),
    ];
    report(checks.into_iter().map(|(name, check)| (name, check(engine, device))))
}

fn tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

fn filled(rank: usize, len: usize, salt: u64, device: &Device) -> Tensor<1> {
    tensor(vector(rank, len, salt), device)
}

fn values_of(tensor: Tensor<1>) -> Result<Vec<f32>, String> {
    let data = tensor.cast(DType::F32).try_into_data().map_err(|e| format!("reading a result failed: {e:?}"))?;
    data.try_into_vec::<f32>().map_err(|e| format!("a result is no f32: {e:?}"))
}

type Expect = fn(&[f32], usize, usize, u64) -> Result<(), String>;

/// Whether tensor number `index` of a bucket is the sum.
fn expect_sum(expect: Expect, got: Tensor<1>, len: usize, world: usize, salt: u64) -> Result<Vec<f32>, String> {
    let values = values_of(got)?;
    if values.len() != len {
        return Err(format!("{} values came back for {len}", values.len()));
    }
    expect(&values, 0, world, salt).map_err(|detail| format!("{len} values: {detail}"))?;
    Ok(values)
}

fn bucket(engine: &mut dyn DeviceCollective, device: &Device, order: Order, expect: Expect) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    let tensors = (0..).zip(BUCKET).map(|(salt, len)| filled(rank, len, salt, device)).collect();
    let sums = engine.all_reduce_tensors(tensors, order)?;
    let mut result = if sums.len() == BUCKET.len() { Ok(()) } else { Err(format!("{} tensors came back", sums.len())) };
    for ((salt, len), sum) in (0..).zip(BUCKET).zip(sums) {
        let values = expect_sum(expect, sum, len, world, salt);
        let same = expect_same_everywhere(engine, values.as_deref().unwrap_or_default())?;
        result = result.and(values.map(drop)).and(same);
    }
    Ok(result)
}

fn bucket_exact(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    bucket(engine, device, Order::Exact, expect_exact)
}

fn bucket_fast(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    bucket(engine, device, Order::Fast, expect_close)
}

fn regions(engine: &mut dyn DeviceCollective, device: &Device, order: Order, expect: Expect) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    let mut result = Ok(());
    for (salt, region) in (20..).zip(REGIONS) {
        let sum = engine.reduce_scatter_tensor(filled(rank, region * world, salt, device), order)?;
        let right = if len_of(&sum) == region {
            values_of(sum).and_then(|values| expect(&values, rank * region, world, salt))
        } else {
            Err(format!("{} values came back", len_of(&sum)))
        };
        result = result.and(right.map_err(|detail| format!("regions of {region}: {detail}")));
    }
    Ok(result)
}

fn regions_exact(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    regions(engine, device, Order::Exact, expect_exact)
}

fn regions_fast(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    regions(engine, device, Order::Fast, expect_close)
}

fn same_bits(got: &[f32], expected: impl Iterator<Item = f32>) -> bool {
    got.iter().map(|v| v.to_bits()).eq(expected.map(f32::to_bits))
}

fn gathered(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    let mut result = Ok(());
    for (salt, region) in (30..).zip(REGIONS) {
        let whole = engine.all_gather_tensor(filled(rank, region, salt, device))?;
        let expected = (0..world).flat_map(|r| (0..region).map(move |i| value(r, i, salt)));
        let right = values_of(whole).and_then(|values| match same_bits(&values, expected) {
            true => Ok(()),
            false => Err(format!("regions of {region}: other values came")),
        });
        result = result.and(right);
    }
    Ok(result)
}

fn broadcast(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    let mut result = Ok(());
    for root in 0..world {
        for (salt, len) in [(40, 1), (41, 30_001)] {
            let got = engine.broadcast_tensor(filled(rank, len, salt, device), root)?;
            let right = values_of(got)
                .map(|values| same_bits(&values, (0..len).map(|i| value(root, i, salt))))
                .and_then(|good| if good { Ok(()) } else { Err(format!("{len} values from rank {root} differ")) });
            result = result.and(right);
        }
    }
    Ok(result)
}

fn bfloat16(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    if !device.supports_dtype(DType::BF16) {
        return Ok(Ok(()));
    }
    let (rank, world) = (engine.rank(), engine.world());
    let mut result = Ok(());
    for order in [Order::Exact, Order::Fast] {
        // Small whole numbers: their sums are exact in bfloat16, in any order.
        let values = (0..3000).map(|i| ((i + rank) % 4) as f32).collect();
        let sum = engine.all_reduce_tensors(vec![tensor(values, device).cast(DType::BF16)], order)?;
        let expected = (0..3000).map(|i| (0..world).map(|r| ((i + r) % 4) as f32).sum());
        for sum in sum {
            let kept = sum.dtype() == DType::BF16;
            let right = values_of(sum).map(|values| same_bits(&values, expected.clone()));
            result = result.and(match right {
                Ok(true) if kept => Ok(()),
                Ok(_) => Err(format!("{order:?}: another type or other sums came back")),
                Err(detail) => Err(detail),
            });
        }
    }
    Ok(result)
}

fn not_finite(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    let mut result = Ok(());
    for order in [Order::Exact, Order::Fast] {
        let mut values = vec![1.0_f32; 10_000];
        if let (true, [first, second, ..]) = (rank == world - 1, values.as_mut_slice()) {
            (*first, *second) = (f32::NAN, f32::NEG_INFINITY);
        }
        for sum in engine.all_reduce_tensors(vec![tensor(values, device)], order)? {
            let right = values_of(sum).and_then(|values| match values.as_slice() {
                [first, second, rest @ ..]
                    if first.is_nan() && *second == f32::NEG_INFINITY && rest.iter().all(|v| *v == world as f32) =>
                {
                    Ok(())
                }
                _ => Err(format!("{order:?}: something was lost")),
            });
            result = result.and(right);
        }
    }
    Ok(result)
}

fn out_of_order(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    let lengths = [9_001, 17, 33_333, 1_025];
    let mut tickets = Vec::new();
    for (salt, len) in (50..).zip(lengths) {
        let order = if salt % 2 == 0 { Order::Exact } else { Order::Fast };
        tickets.push((salt, len, engine.start_all_reduce(vec![filled(rank, len, salt, device)], order)?));
    }
    let mut result = Ok(());
    // Last first, then the second, the first, the third.
    for at in [3, 1, 0, 0] {
        if at >= tickets.len() {
            continue;
        }
        let (salt, len, ticket) = tickets.remove(at);
        let expect: Expect = if salt % 2 == 0 { expect_exact } else { expect_close };
        for sum in engine.wait(ticket)? {
            result = result.and(expect_sum(expect, sum, len, world, salt).map(drop));
        }
    }
    Ok(result)
}

fn ordered_with_work(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    // The input is still being computed when the sum is started, and its output is used at once.
    let mut input = tensor(vec![(rank + 1) as f32; LONG], device);
    for _ in 0..8 {
        input = input * 2.0;
    }
    let ticket = engine.start_all_reduce(vec![input], Order::Fast)?;
    let other = tensor(vec![3.0; LONG], device) + 4.0;
    let expected = 256.0 * (world * (world + 1) / 2) as f32 + 7.0;
    let mut result = Ok(());
    for sum in engine.wait(ticket)? {
        let right = values_of(sum + other.clone()).and_then(|values| {
            let wrong = values.iter().find(|v| **v != expected);
            wrong.map_or(Ok(()), |v| Err(format!("{v} came where {expected} is due")))
        });
        result = result.and(right);
    }
    Ok(result)
}

fn memory_under_way(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    let mut result = Ok(());
    for (salt, order) in [(60, Order::Exact), (61, Order::Fast)] {
        let ticket = engine.start_all_reduce(vec![filled(rank, LONG, salt, device)], order)?;
        // Whatever memory is free now is written to; the tensors under way must not be part of it.
        for turn in 0..16 {
            let scribble = tensor(vec![f32::NAN; LONG], device) * turn as f32;
            drop(scribble.clone() + scribble);
        }
        let expect: Expect = if order == Order::Exact { expect_exact } else { expect_close };
        for sum in engine.wait(ticket)? {
            result = result.and(expect_sum(expect, sum, LONG, world, salt).map(drop));
        }
    }
    Ok(result)
}

fn mixed(engine: &mut dyn DeviceCollective, device: &Device) -> Outcome {
    let (rank, world) = (engine.rank(), engine.world());
    let mut result = Ok(());
    for turn in 0..10_usize {
        let salt = turn as u64;
        let ticket = engine.start_all_reduce(vec![filled(rank, 500 + turn, salt, device)], Order::Exact)?;
        let all = engine.all_gather_bytes(&[rank as u8, turn as u8])?;
        let gather = engine.start_all_gather(filled(rank, 64, salt, device))?;
        let good = all.iter().enumerate().all(|(r, bytes)| *bytes == [r as u8, turn as u8]);
        result = result.and(if good { Ok(()) } else { Err(format!("turn {turn}: other bytes came")) });
        for whole in engine.wait(gather)? {
            let expected = (0..world).flat_map(|r| (0..64).map(move |i| value(r, i, salt)));
            let good = values_of(whole).is_ok_and(|values| same_bits(&values, expected));
            result = result.and(if good { Ok(()) } else { Err(format!("turn {turn}: other regions came")) });
        }
        for sum in engine.wait(ticket)? {
            result = result.and(expect_sum(expect_exact, sum, 500 + turn, world, salt).map(drop));
        }
    }
    engine.settle()?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::device_collective::Staged;

    #[test]
    fn a_world_of_one_conforms_through_host_memory() {
        let report = run(&mut Staged::alone(), &Device::flex());
        assert_eq!(report.len(), 12);
        assert!(report.iter().all(|c| c.passed), "{report:?}");
    }
}
