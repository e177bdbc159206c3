//! Owns the kinds of adapters and number formats of a frozen base, as they are written; never touches what they mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is trained on top of a frozen base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// Low-rank corrections of linear layers.
    Lora,
    /// The same, with the linear layers of the base held in 4 bits.
    Qlora,
}

/// Number format of a frozen base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BaseDtype {
    /// bf16 where all of the base is stored in bf16, else fp32: nothing is rounded.
    #[default]
    Auto,
    /// 32-bit floats.
    Fp32,
    /// Matrices rounded to bf16; computed in the run's precision.
    Bf16,
}
