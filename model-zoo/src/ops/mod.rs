//! Owns the operations that models are made of, each with its gradients; never touches models, files or schedules.
//!
//! Every op takes tensors of any device, with or without autodiff. On the CPU (burn's Flex, `f32`) it runs as one fused
//! kernel whose backward pass is written by hand; elsewhere as tensor operations: those of [`anywhere`], with a backward
//! pass by hand, or of [`reference`], which burn's autodiff differentiates. Kernels cut
//! their work by shape alone and add up in a fixed order, so the bits of a result do not depend on the number of
//! threads (they may differ between instruction sets). Without a tracked input nothing is kept for a backward pass.

mod adamw;
mod anywhere;
mod attention;
mod bias;
mod branches;
mod cross_entropy;
mod embedding;
mod flex;
mod frozen;
mod gated_linear;
mod gelu;
mod gemm;
mod glu;
mod graph;
mod layer_norm;
mod linear;
mod magnitude;
mod mix_rows;
mod muon;
mod nf4;
mod norm_linears;
mod outputs;
mod parallel;
mod pull_back;
mod reduce;
mod reference;
mod rms_norm;
mod rope;
mod scratch;
mod simd;
mod softmax;

#[cfg(test)]
mod tests;

pub use adamw::{AdamwStep, adamw};
pub use attention::{AttentionRule, AttentionShape, attention};
pub use bias::add_bias;
pub use branches::branches;
pub use cross_entropy::{linear_cross_entropy, linear_cross_entropy_tokens};
pub use embedding::embedding;
pub use frozen::{LowRank, Stored, adapted_linear, frozen_linear, frozen_rows};
pub use gated_linear::gated_linear;
pub use gelu::gelu_tanh;
pub use glu::{Gate, gated, geglu, swiglu};
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_in_out};
pub(crate) use magnitude::row_lengths;
pub use magnitude::{adapted_matrix, adapted_row_lengths, scale_columns};
pub use mix_rows::mix_rows;
pub use muon::{MuonStep, muon, orthogonal};
pub use nf4::Nf4;
pub use norm_linears::rms_norm_linears;
pub use pull_back::pull_back;
pub use reduce::{SUM_CHUNK, add, chunk_squares, sum_squares};
pub(crate) use reference::softcap;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use softmax::softmax;
