//! Owns digests of a training state's content; never touches files.
//!
//! Digests run over content sorted by name, never over file bytes: two files with the same tensors may differ in
//! layout, two states with the same bits may not differ here.

use burn::tensor::Tensor;
use model_zoo::ParamSpec;

use super::TrainState;

/// Little-endian bytes of a flat f32 tensor.
pub fn tensor_bytes(tensor: &Tensor<1>) -> Vec<u8> {
    // Flat parameters are contiguous f32 on every backend, so the data's bytes are the values in order.
    tensor.clone().into_data().as_bytes().to_vec()
}

/// Hex BLAKE3 of one tensor's bytes.
pub fn bytes_digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Combines per-tensor digests with the counters into the digest of a state.
pub fn combine(mut tensors: Vec<(String, String)>, step: u64, tokens: u64, updates: u64) -> String {
    tensors.sort();
    let mut hasher = blake3::Hasher::new();
    for (key, digest) in &tensors {
        hasher.update(key.as_bytes());
        hasher.update(b"\0");
        hasher.update(digest.as_bytes());
        hasher.update(b"\0");
    }
    for counter in [step, tokens, updates] {
        hasher.update(&counter.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Digest of a whole state: parameters, both moments, counters.
pub fn state(state: &TrainState) -> String {
    let (params, optimizer) = (state.params.tensors(), &state.optimizer);
    let parts = [("parameter", params), ("exp_avg", &optimizer.exp_avg), ("exp_avg_sq", &optimizer.exp_avg_sq)];
    of_replica(state, &parts)
}

/// Digest of the parameters and the counters: what every process holds whole, however the optimizer's state is divided.
pub fn parameters(state: &TrainState) -> String {
    of_replica(state, &[("parameter", state.params.tensors())])
}

/// Digest of what every process of a run must hold alike: everything, but no moments where each keeps its own pieces.
pub fn replica(replica: &TrainState) -> String {
    match replica.optimizer.partition {
        None => state(replica),
        Some(_) => parameters(replica),
    }
}

fn of_replica(state: &TrainState, parts: &[(&str, &[Tensor<1>])]) -> String {
    combine(of_parts(state.params.specs(), parts), state.step, state.tokens, state.optimizer.updates)
}

/// Keys and digests of tensors, one a spec for each kind.
pub fn of_parts(specs: &[ParamSpec], parts: &[(&str, &[Tensor<1>])]) -> Vec<(String, String)> {
    let of_kind = |(kind, tensors): &(&str, &[Tensor<1>])| -> Vec<_> {
        specs.iter().zip(*tensors).map(|(spec, tensor)| of_tensor(kind, spec, tensor)).collect()
    };
    parts.iter().flat_map(of_kind).collect()
}

/// Key and digest of one tensor.
pub fn of_tensor(kind: &str, spec: &ParamSpec, tensor: &Tensor<1>) -> (String, String) {
    of_values(kind, spec, tensor.clone().into_data().as_bytes())
}

/// Key and digest of a tensor whose little-endian bytes are at hand: a large state is not copied to be hashed.
pub fn of_values(kind: &str, spec: &ParamSpec, bytes: &[u8]) -> (String, String) {
    (format!("{kind}/{}", spec.name), bytes_digest(bytes))
}
