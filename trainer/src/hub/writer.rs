//! Owns writing parameters as safetensors files, whole or in shards; never touches how they are read back.

use std::path::Path;

use half::{bf16, f16};
use model_zoo::{ParamSpec, Params, WeightDtype};
use safetensors::Dtype;
use serde_json::{Map, json};

use super::{HubError, INDEX_FILE, WEIGHTS_FILE};
use crate::durable::write_atomic;
use crate::tensor_file::{self, Entry};

/// Writes all parameters under their Hugging Face names into `dir`: one file, or several with an index when one would
/// hold more than `max_shard_bytes`. A tensor is never split. One tensor stands in host memory at a time. `written`
/// is told the number of tensors done.
///
/// # Errors
/// [`HubError::Overflow`] when a value does not fit `dtype`, or when the disk or the device refuses.
pub(crate) fn write_weights(
    dir: &Path,
    params: &Params,
    dtype: WeightDtype,
    max_shard_bytes: u64,
    written: &dyn Fn(usize),
) -> Result<(), HubError> {
    let specs = params.specs();
    let shards = cut(specs, dtype, max_shard_bytes);
    if let [all] = shards.as_slice() {
        return write_file(&dir.join(WEIGHTS_FILE), params, all, dtype, written);
    }
    let mut weight_map = Map::new();
    for (number, indices) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        write_file(&dir.join(&file), params, indices, dtype, written)?;
        for spec in indices.iter().filter_map(|index| specs.get(*index)) {
            weight_map.insert(spec.name.clone(), json!(file));
        }
    }
    weight_map.sort_keys();
    let elements = params.num_elements() as u64;
    let index = json!({
        "metadata": { "total_parameters": elements, "total_size": elements * dtype.num_bytes() as u64 },
        "weight_map": weight_map,
    });
    write_atomic(&dir.join(INDEX_FILE), format!("{index:#}\n").as_bytes())?;
    Ok(())
}

/// Writes all parameters into one file.
///
/// # Errors
/// As [`write_weights`].
pub(crate) fn write_tensors(path: &Path, params: &Params, dtype: WeightDtype) -> Result<(), HubError> {
    let all: Vec<usize> = (0..params.specs().len()).collect();
    write_file(path, params, &all, dtype, &|_| ())
}

/// Indices of the parameters of each file, in order.
fn cut(specs: &[ParamSpec], dtype: WeightDtype, max_shard_bytes: u64) -> Vec<Vec<usize>> {
    let mut shards: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for (index, spec) in specs.iter().enumerate() {
        let bytes = spec.num_elements() as u64 * dtype.num_bytes() as u64;
        match shards.last_mut() {
            Some(shard) if bytes <= room => {
                room -= bytes;
                shard.push(index);
            }
            _ => {
                room = max_shard_bytes.saturating_sub(bytes);
                shards.push(vec![index]);
            }
        }
    }
    shards
}

fn write_file(
    path: &Path,
    params: &Params,
    indices: &[usize],
    dtype: WeightDtype,
    written: &dyn Fn(usize),
) -> Result<(), HubError> {
    let stored = match dtype {
        WeightDtype::F32 => Dtype::F32,
        WeightDtype::F16 => Dtype::F16,
        WeightDtype::Bf16 => Dtype::BF16,
    };
    let mut entries = Vec::with_capacity(indices.len());
    for (index, spec) in indices.iter().filter_map(|&index| Some((index, params.specs().get(index)?))) {
        let bytes = Box::new(move || {
            let bytes = encode(&spec.name, &params.to_host(index)?, dtype)?;
            written(index + 1);
            Ok(bytes)
        });
        entries.push(Entry { name: spec.name.clone(), dtype: stored, shape: spec.shape.clone(), bytes });
    }
    tensor_file::write::<HubError>(path, entries).map(|_| ())
}

/// Little-endian bytes of finite values, rounded to nearest even.
fn encode(name: &str, values: &[f32], dtype: WeightDtype) -> Result<Vec<u8>, HubError> {
    let overflow = |value: f32| HubError::Overflow { name: name.to_owned(), value, dtype };
    if let Some(value) = values.iter().find(|value| !round(**value, dtype).is_finite()) {
        return Err(overflow(*value));
    }
    Ok(match dtype {
        WeightDtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        WeightDtype::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        WeightDtype::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
    })
}

/// What a value becomes when it is stored as `dtype` and read again.
pub(crate) fn round(value: f32, dtype: WeightDtype) -> f32 {
    match dtype {
        WeightDtype::F32 => value,
        WeightDtype::F16 => f16::from_f32(value).to_f32(),
        WeightDtype::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use model_zoo::Init;

    use super::*;

    fn specs(sizes: &[usize]) -> Vec<ParamSpec> {
        let spec = |(i, size): (usize, &usize)| ParamSpec::new(format!("t{i}"), vec![*size], Init::Ones);
        sizes.iter().enumerate().map(spec).collect()
    }

    #[test]
    fn shards_are_filled_in_order_and_tensors_are_never_split() {
        assert_eq!(cut(&specs(&[2, 2, 2, 9, 1, 1]), WeightDtype::F32, 16), [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
        assert_eq!(cut(&specs(&[2, 2, 2, 9, 1, 1]), WeightDtype::Bf16, 16), [vec![0, 1, 2], vec![3], vec![4, 5]]);
        assert_eq!(cut(&specs(&[2, 2, 2]), WeightDtype::F32, 1 << 30), [vec![0, 1, 2]]);
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        let error = encode("w", &[1.0, 70_000.0], WeightDtype::F16).unwrap_err().to_string();
        assert_eq!(error, "parameter \"w\" holds 70000, which float16 cannot represent; export as bf16 or f32");
        assert!(encode("w", &[f32::NAN], WeightDtype::F32).is_err());
        assert_eq!(encode("w", &[70_000.0], WeightDtype::Bf16).unwrap().len(), 2);
    }
}
