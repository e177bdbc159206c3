//! Owns the other names and forms under which published files hold a model's parameters; never touches files.

use std::ops::Range;

use crate::config::ModelConfig;
use crate::params::ParamSpec;

/// A place in a file where the values of a parameter may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Name of the stored tensor.
    pub name: String,
    /// Its shape, which may be that of several parameters together.
    pub shape: Vec<usize>,
    /// The elements that are the parameter, row-major.
    pub elements: Range<usize>,
}

impl ModelConfig {
    /// Where the values of a parameter may stand, the name that exports use first. A file must hold exactly one of them.
    #[must_use]
    pub fn spellings(&self, spec: &ParamSpec) -> Vec<Stored> {
        let whole =
            |name: &str| Stored { name: name.into(), shape: spec.shape.clone(), elements: 0..spec.num_elements() };
        let mut all = vec![whole(&spec.name)];
        match self {
            Self::Gpt2(_) => all.extend(spec.name.strip_prefix(GPT2_PREFIX).map(whole)),
            Self::Mixtral(config) => all.extend(fused_experts(spec, config.num_local_experts)),
            _ => {}
        }
        all
    }

    /// Whether a stored tensor of this name is no parameter of any model: tables that older programs saved with the
    /// weights and that follow from the configuration.
    #[must_use]
    pub fn is_buffer(&self, name: &str) -> bool {
        match self {
            // The causal mask and what it put in place of scores.
            Self::Gpt2(_) => {
                let name = name.strip_prefix(GPT2_PREFIX).unwrap_or(name);
                name.starts_with("h.") && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))
            }
            _ => name.ends_with(".self_attn.rotary_emb.inv_freq"),
        }
    }
}

/// Published GPT-2 files have no prefix, files that transformers writes have one.
const GPT2_PREFIX: &str = "transformer.";

/// The form in which transformers 5 holds experts in memory, and stores them when asked not to restore the published
/// one: all gates and all ups of a block in `mlp.experts.gate_up_proj` `[experts, 2 * inner, hidden]`, all downs in
/// `mlp.experts.down_proj` `[experts, hidden, inner]` (conversion_mapping.py, "mixtral").
fn fused_experts(spec: &ParamSpec, experts: usize) -> Option<Stored> {
    let (block, part) = spec.name.split_once(".block_sparse_moe.")?;
    if part == "gate.weight" {
        let (name, shape) = (format!("{block}.mlp.gate.weight"), spec.shape.clone());
        return Some(Stored { name, shape, elements: 0..spec.num_elements() });
    }
    let (expert, matrix) = part.strip_prefix("experts.")?.split_once('.')?;
    let (expert, size): (usize, usize) = (expert.parse().ok()?, spec.num_elements());
    let &[rows, columns] = spec.shape.as_slice() else { return None };
    let (name, rows, place) = match matrix {
        "w1.weight" => ("gate_up_proj", 2 * rows, 2 * expert),
        "w3.weight" => ("gate_up_proj", 2 * rows, 2 * expert + 1),
        "w2.weight" => ("down_proj", rows, expert),
        _ => return None,
    };
    Some(Stored {
        name: format!("{block}.mlp.experts.{name}"),
        shape: vec![experts, rows, columns],
        elements: place * size..(place + 1) * size,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::config::{gpt2_tests, mixtral_tests};
    use crate::model::Model;

    /// Every element of the fused tensors belongs to exactly one parameter, in the order that transformers gives it.
    #[test]
    fn fused_experts_are_cut_without_gaps() {
        let config = ModelConfig::Mixtral(mixtral_tests::tiny());
        let specs = Model::new(&config).unwrap().specs();
        let mut parts: Vec<(String, Range<usize>, Vec<usize>)> = Vec::new();
        for spec in specs.iter().filter(|spec| spec.name.contains("layers.1.block_sparse_moe.experts")) {
            let [own, fused] = config.spellings(spec).try_into().unwrap();
            assert_eq!((&own.name, &own.shape, own.elements), (&spec.name, &spec.shape, 0..spec.num_elements()));
            parts.push((fused.name, fused.elements, fused.shape));
        }
        parts.sort_by_key(|(name, elements, _)| (name.clone(), elements.start));
        let mut ends = std::collections::BTreeMap::<String, usize>::new();
        for (name, elements, shape) in parts {
            let end = ends.entry(name.clone()).or_default();
            assert_eq!(*end, elements.start, "{name}");
            *end = elements.end;
            assert!(elements.end <= shape.iter().product(), "{name}");
        }
        let (up, down) = ("model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj");
        assert_eq!(ends.into_iter().collect::<Vec<_>>(), [(down.into(), 5 * 24 * 40), (up.into(), 5 * 80 * 24)]);
        let router = specs.iter().find(|spec| spec.name.ends_with("moe.gate.weight")).unwrap();
        assert_eq!(config.spellings(router)[1].name, "model.layers.0.mlp.gate.weight");
    }

    #[test]
    fn gpt2_has_a_prefix_or_none_and_drops_its_masks() {
        let config = ModelConfig::Gpt2(gpt2_tests::tiny());
        let specs = Model::new(&config).unwrap().specs();
        let names: Vec<String> = config.spellings(&specs[4]).into_iter().map(|stored| stored.name).collect();
        assert_eq!(names, ["transformer.h.0.attn.c_attn.weight", "h.0.attn.c_attn.weight"]);
        assert!(specs.iter().all(|spec| !config.is_buffer(&spec.name)));
        for buffer in ["h.3.attn.bias", "transformer.h.0.attn.masked_bias"] {
            assert!(config.is_buffer(buffer), "{buffer}");
        }
        assert!(!config.is_buffer("h.0.attn.c_attn.bias") && !config.is_buffer("x.attn.bias"));
    }
}
