//! Owns what a Mixtral is made of; never touches tensors or JSON.

use serde::{Deserialize, Serialize};

use super::rules::{MAX_POSITIONS, bounded, invalid};
use super::{ConfigError, DecoderConfig};

/// Most experts of a block, far above any published model.
const MAX_EXPERTS: usize = 1 << 10;
/// Most experts of all blocks together: each has names of its own, which are made before weights are looked at.
const MAX_EXPERTS_OF_ALL_BLOCKS: usize = 1 << 16;
/// Most elements of one block's experts together, so that counts of all blocks stay inside 64 bits.
const MAX_EXPERT_ELEMENTS: u64 = 1 << 44;

/// Mixtral: a Mistral whose feed-forward block is chosen, token by token, among several (A. Q. Jiang et al. 2024,
/// arXiv:2401.04088). `intermediate_size` is that of one expert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixtralConfig {
    /// What it shares with a Llama.
    pub decoder: DecoderConfig,
    /// Most tokens that a token sees, itself included; `None` = all earlier ones.
    pub sliding_window: Option<usize>,
    /// Experts of a block.
    pub num_local_experts: usize,
    /// Experts that a token passes through.
    pub num_experts_per_tok: usize,
    /// Factor of the load-balancing loss, where it is trained.
    pub router_aux_loss_coef: f64,
    /// Whether training adds the load-balancing loss unless told otherwise. Named for what else it does in
    /// transformers.
    pub output_router_logits: bool,
}

impl MixtralConfig {
    /// Checks every rule that a Mixtral must keep.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.decoder.validate()?;
        if let Some(window) = self.sliding_window {
            bounded("sliding_window", window, MAX_POSITIONS)?;
        }
        bounded("num_local_experts", self.num_local_experts, MAX_EXPERTS)?;
        bounded("num_experts_per_tok", self.num_experts_per_tok, self.num_local_experts)?;
        let DecoderConfig { hidden_size, intermediate_size, num_hidden_layers, .. } = self.decoder;
        let all = num_hidden_layers * self.num_local_experts;
        bounded("num_hidden_layers * num_local_experts", all, MAX_EXPERTS_OF_ALL_BLOCKS)?;
        let elements = [self.num_local_experts, hidden_size, intermediate_size].map(|size| size as u64);
        if elements.iter().product::<u64>() > MAX_EXPERT_ELEMENTS {
            return invalid(format!(
                "num_local_experts * hidden_size * intermediate_size is {}, beyond {MAX_EXPERT_ELEMENTS}",
                elements.iter().product::<u64>()
            ));
        }
        if !self.router_aux_loss_coef.is_finite() || self.router_aux_loss_coef < 0.0 {
            return invalid(format!("router_aux_loss_coef is {}, not 0 or more", self.router_aux_loss_coef));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// A model small enough for unit tests.
    pub(crate) fn tiny() -> MixtralConfig {
        MixtralConfig {
            decoder: crate::config::tests::tiny(),
            sliding_window: None,
            num_local_experts: 5,
            num_experts_per_tok: 2,
            router_aux_loss_coef: 0.02,
            output_router_logits: false,
        }
    }

    fn refused(change: impl FnOnce(&mut MixtralConfig), part: &str) {
        let mut config = tiny();
        change(&mut config);
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    }

    #[test]
    fn impossible_configurations_are_refused() {
        assert_eq!(tiny().validate(), Ok(()));
        refused(|c| c.num_local_experts = 0, "num_local_experts is 0");
        refused(|c| c.num_experts_per_tok = 6, "num_experts_per_tok is 6, outside 1..=5");
        refused(|c| c.router_aux_loss_coef = -0.1, "router_aux_loss_coef is -0.1");
        refused(|c| c.router_aux_loss_coef = f64::NAN, "router_aux_loss_coef is NaN");
        refused(|c| c.sliding_window = Some(0), "sliding_window is 0");
        refused(
            |c| {
                c.num_local_experts = 1024;
                c.decoder.hidden_size = 1 << 18;
                c.decoder.intermediate_size = 1 << 18;
            },
            "num_local_experts * hidden_size * intermediate_size is 70368744177664",
        );
    }
}
