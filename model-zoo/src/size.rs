//! Owns arithmetic about a model's size: parameters, operations and activation memory; never touches devices.

use crate::backward::Recompute;
use crate::config::{DecoderConfig, Gpt2Config, MixtralConfig, ModelConfig};
use crate::model::Precision;

/// Parameters by category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCount {
    /// Token embedding, and that of positions where there is one.
    pub embedding: u64,
    /// Query, key, value and output projections of all blocks.
    pub attention: u64,
    /// Gate, up and down projections of all blocks, of all their experts, and what chooses among those.
    pub feed_forward: u64,
    /// Norm scales and biases.
    pub vectors: u64,
    /// Output head; 0 when it is the embedding.
    pub head: u64,
}

impl ParameterCount {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.embedding + self.attention + self.feed_forward + self.vectors + self.head
    }
}

/// Counts the parameters of a valid configuration.
#[must_use]
pub fn count_parameters(config: &ModelConfig) -> ParameterCount {
    let sizes = Sizes::of(config);
    ParameterCount {
        embedding: (sizes.vocab + sizes.positions) * sizes.hidden,
        attention: sizes.layers * 2 * sizes.hidden * (sizes.query + sizes.key_value),
        feed_forward: sizes.layers * sizes.feed_forward.parameters,
        vectors: sizes.layers * sizes.block_vectors + sizes.last_vectors,
        head: if config.tied_head() { 0 } else { sizes.vocab * sizes.hidden },
    }
}

/// Parameters that compute with one token: all but those of the experts that it does not choose.
#[must_use]
pub fn count_active_parameters(config: &ModelConfig) -> u64 {
    let FeedForward { parameters, active, .. } = Sizes::of(config).feed_forward;
    count_parameters(config).total() - config.num_layers() as u64 * (parameters - active)
}

/// Floating-point operations to train on one token of a row of `seq` tokens: 6 for every parameter that takes part in
/// a matrix product (the head counts, the embedding look-up and experts that a token does not choose do not) and, for causal attention, 6 a layer, query
/// element and token of context: two products forward, four backward, half of them masked; in a layer with a window
/// only what the window leaves. Recomputation is not counted.
#[must_use]
pub fn flops_per_token(config: &ModelConfig, seq: usize) -> f64 {
    let sizes = Sizes::of(config);
    let count = count_parameters(config);
    let feed_forward = sizes.layers * sizes.feed_forward.active;
    let matmul_parameters = count.attention + feed_forward + sizes.vocab * sizes.hidden;
    let context = (0..config.num_layers()).map(|layer| context(seq, window(config, layer))).sum::<f64>();
    let attention = sizes.query as f64 * context;
    6.0 * (matmul_parameters as f64 + attention)
}

/// Twice the tokens that a token of a row sees on average, in the limit of long rows: `seq` without a window.
fn context(seq: usize, window: Option<usize>) -> f64 {
    let (seq, window) = (seq as f64, window.map_or(f64::INFINITY, |window| window as f64));
    if window < seq { 2.0 * window - window * window / seq } else { seq }
}

/// The window of a layer; `None` = it has none.
fn window(config: &ModelConfig, layer: usize) -> Option<usize> {
    match config {
        ModelConfig::Llama(_) => None,
        ModelConfig::Mistral(config) => config.sliding_window,
        ModelConfig::Qwen2(config) => config.windows.as_ref()?.of(layer),
        ModelConfig::Qwen3(config) => config.windows.as_ref()?.of(layer),
        ModelConfig::Gemma2(config) => config.windows.of(layer),
        ModelConfig::Gemma3(config) => config.windows.of(layer),
        ModelConfig::Mixtral(config) => config.sliding_window,
        ModelConfig::Gpt2(_) => None,
    }
}

/// Which kernels run between the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// Fused ops that span norms, products and activations, for weights that are all trained, in f32.
    Joined,
    /// Fused ops with hand-written backward: neither scores nor logits are kept.
    Fused,
    /// Tensor operations with backward passes by hand, as devices have them: some queries and rows at a time, with the
    /// intermediate tensors of these.
    Chunked,
}

/// What one micro-batch keeps between forward and backward, bytes. An estimate: it counts tensors, not the
/// allocator's slack or the workspace of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationMemory {
    /// Inside the blocks.
    pub blocks: u64,
    /// Final norm, head and loss.
    pub head: u64,
    /// Copies of the weights in the number format of matrix products; 0 in f32.
    pub weight_copies: u64,
}

impl ActivationMemory {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.blocks + self.head + self.weight_copies
    }
}

/// Logits that a fused head holds at a time, about; `ops::linear_cross_entropy` cuts its rows so.
const FUSED_LOGITS: u64 = 1 << 22;
/// Scores, and logits, that tensor operations hold at a time; `ops::anywhere` cuts queries and rows so.
const CHUNK: u64 = 1 << 25;
/// Tensors of that size that stand at one time in a backward pass: scores, weights, their gradients, and a result.
const CHUNK_COPIES: u64 = 4;

/// Estimates the activations of `rows` rows of `seq` tokens. Blocks that `recompute` covers keep their inputs, and one at
/// a time the rest.
#[must_use]
pub fn activation_memory(
    config: &ModelConfig,
    rows: usize,
    seq: usize,
    precision: Precision,
    kernels: Kernels,
    recompute: Recompute,
) -> ActivationMemory {
    let sizes = Sizes::of(config);
    let tokens = rows as u64 * seq as u64;
    let wide = 4;
    let narrow = match precision {
        Precision::F32 => 4,
        Precision::Bf16Mixed => 2,
    };
    // The inputs of norms in f32; then what the products read: two norm outputs, rotated queries and keys, values,
    // attended values, and what the feed-forward block keeps. One statistic a norm, one log-sum a head.
    let stream = sizes.norm_inputs + sizes.norm_statistics + sizes.heads;
    let products = 2 * sizes.hidden + 2 * sizes.query + 2 * sizes.key_value + sizes.feed_forward.kept;
    let mut per_token = stream * wide + products * narrow;
    let mut head = tokens * (2 * sizes.hidden * wide + 2 * sizes.hidden * narrow);
    if kernels == Kernels::Joined {
        per_token -= sizes.passing * wide;
    }
    match kernels {
        Kernels::Joined | Kernels::Fused => {
            head += (FUSED_LOGITS.min(tokens * sizes.vocab) + sizes.vocab * sizes.hidden) * wide
        }
        Kernels::Chunked => {
            // One after the other: attention and loss do not stand at the same time.
            let chunk = CHUNK.min(tokens * sizes.vocab.max(sizes.heads * seq as u64));
            head += (CHUNK_COPIES * chunk + 2 * sizes.vocab * sizes.hidden) * wide;
        }
    }
    let weight_copies = match precision {
        Precision::F32 => 0,
        Precision::Bf16Mixed => {
            let count = count_parameters(config);
            (count.attention + count.feed_forward + sizes.vocab * sizes.hidden) * narrow
        }
    };
    let blocks = match recompute {
        Recompute::Nothing => sizes.layers * per_token,
        // What the blocks in between keep is freed when the first of the others is computed again, but for a last block
        // that is one of these.
        Recompute::EveryOther => (sizes.layers / 2) * sizes.hidden * wide + sizes.layers.div_ceil(2) * per_token,
        Recompute::Everything => sizes.layers * sizes.hidden * wide + per_token,
    };
    ActivationMemory { blocks: tokens * blocks, head, weight_copies }
}

/// The feed-forward part of a block.
#[derive(Clone, Copy)]
struct FeedForward {
    /// Elements of all its matrices.
    parameters: u64,
    /// Elements of those that compute with one token.
    active: u64,
    /// Elements kept of a token, beside the input.
    kept: u64,
}

impl FeedForward {
    /// Gate, up and down: kept are gate, up and their product.
    fn gated(hidden: u64, inner: u64) -> Self {
        Self { parameters: 3 * hidden * inner, active: 3 * hidden * inner, kept: 3 * inner }
    }

    /// Several of them, of which a token passes through `chosen`: it is copied for each, and so is what comes out.
    fn experts(self, hidden: u64, experts: u64, chosen: u64) -> Self {
        let router = experts * hidden;
        Self {
            parameters: router + experts * self.parameters,
            active: router + chosen * self.active,
            kept: experts + chosen * (2 * hidden + self.kept),
        }
    }

    /// Up and down: kept is what is before and after the activation.
    fn plain(hidden: u64, inner: u64) -> Self {
        Self { parameters: 2 * hidden * inner, active: 2 * hidden * inner, kept: 2 * inner }
    }
}

struct Sizes {
    vocab: u64,
    /// Rows of the table of positions.
    positions: u64,
    hidden: u64,
    feed_forward: FeedForward,
    layers: u64,
    heads: u64,
    query: u64,
    key_value: u64,
    /// Norm scales and biases of a block.
    block_vectors: u64,
    /// Norm scales and biases after the last block.
    last_vectors: u64,
    /// Elements of a token that the norms of a block read.
    norm_inputs: u64,
    /// Means and means of squares of a token that they keep.
    norm_statistics: u64,
    /// Elements of a token that ops over several steps compute again instead of keeping them: what norms hand to
    /// products, and what gates hand to the product behind them.
    passing: u64,
}

impl Sizes {
    fn of(config: &ModelConfig) -> Self {
        match config {
            ModelConfig::Llama(decoder) => Self::new(decoder, 2, false, false),
            ModelConfig::Mistral(config) => Self::new(&config.decoder, 2, false, false),
            ModelConfig::Qwen2(config) => Self::new(&config.decoder, 2, false, true),
            ModelConfig::Qwen3(config) => Self::new(&config.decoder, 2, true, false),
            ModelConfig::Gemma2(config) => Self::new(&config.decoder, 4, false, false),
            ModelConfig::Gemma3(config) => Self::new(&config.decoder, 4, true, false),
            ModelConfig::Mixtral(config) => Self::mixtral(config),
            ModelConfig::Gpt2(config) => Self::gpt2(config),
        }
    }

    /// `block_norms` norms a block over the width of the stream, and `head_norms` over heads of queries and keys;
    /// `biases` on queries, keys and values.
    fn new(decoder: &DecoderConfig, block_norms: u64, head_norms: bool, biases: bool) -> Self {
        let (hidden, head_dim) = (decoder.hidden_size as u64, decoder.head_dim as u64);
        let (heads, kv_heads) = (decoder.num_attention_heads as u64, decoder.num_key_value_heads as u64);
        let (query, key_value) = (heads * head_dim, kv_heads * head_dim);
        let (with_heads, with_biases) = (u64::from(head_norms), u64::from(biases));
        Self {
            vocab: decoder.vocab_size as u64,
            positions: 0,
            hidden,
            feed_forward: FeedForward::gated(hidden, decoder.intermediate_size as u64),
            layers: decoder.num_hidden_layers as u64,
            heads,
            query,
            key_value,
            block_vectors: block_norms * hidden + with_heads * 2 * head_dim + with_biases * (query + 2 * key_value),
            last_vectors: hidden,
            norm_inputs: block_norms * hidden + with_heads * (query + key_value),
            norm_statistics: block_norms + with_heads * (heads + kv_heads),
            passing: 2 * hidden + decoder.intermediate_size as u64,
        }
    }

    fn mixtral(config: &MixtralConfig) -> Self {
        let dense = Self::new(&config.decoder, 2, false, false);
        let (experts, chosen) = (config.num_local_experts as u64, config.num_experts_per_tok as u64);
        let feed_forward = dense.feed_forward.experts(dense.hidden, experts, chosen);
        let passing = dense.hidden + chosen * config.decoder.intermediate_size as u64;
        Self { feed_forward, passing, ..dense }
    }

    fn gpt2(config: &Gpt2Config) -> Self {
        let (hidden, inner) = (config.n_embd as u64, config.n_inner as u64);
        Self {
            vocab: config.vocab_size as u64,
            positions: config.n_positions as u64,
            hidden,
            feed_forward: FeedForward::plain(hidden, inner),
            layers: config.n_layer as u64,
            heads: config.n_head as u64,
            query: hidden,
            key_value: hidden,
            // Two norms with biases; the biases of queries, keys and values, of the output, of up and of down.
            block_vectors: 9 * hidden + inner,
            last_vectors: 2 * hidden,
            norm_inputs: 2 * hidden,
            norm_statistics: 4,
            passing: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::config::tests::{families, tiny};
    use crate::config::{gpt2_tests, mixtral_tests};
    use crate::model::Model;

    /// Shape A of the speed comparison: 6 x 256, feed-forward 704, heads 8/4, vocabulary 8192.
    fn shape_a(tied: bool) -> ModelConfig {
        let mut config = tiny();
        config.vocab_size = 8192;
        config.hidden_size = 256;
        config.intermediate_size = 704;
        config.num_hidden_layers = 6;
        config.num_attention_heads = 8;
        config.num_key_value_heads = 4;
        config.head_dim = 32;
        config.tie_word_embeddings = tied;
        ModelConfig::Llama(config)
    }

    #[test]
    fn the_count_is_that_of_the_specs() {
        let (mixtral, gpt2) = (mixtral_tests::tiny(), gpt2_tests::tiny());
        let untied = Gpt2Config { tie_word_embeddings: false, ..gpt2.clone() };
        let others = [ModelConfig::Mixtral(mixtral), ModelConfig::Gpt2(gpt2), ModelConfig::Gpt2(untied)];
        let all = [false, true].into_iter().flat_map(families);
        for config in [shape_a(false), shape_a(true)].into_iter().chain(all).chain(others) {
            let specs = Model::new(&config).unwrap().specs();
            let elements: usize = specs.iter().map(|spec| spec.num_elements()).sum();
            assert_eq!(count_parameters(&config).total(), elements as u64);
        }
    }

    /// 8.62 M parameters is what the PyTorch peer prints for this shape.
    #[test]
    fn shape_a_has_the_known_size_and_operations() {
        assert_eq!(count_parameters(&shape_a(false)).total(), 8_621_312);
        let matmul = 6.0 * 256.0 * 32.0 * 24.0 + 6.0 * 3.0 * 256.0 * 704.0 + 8192.0 * 256.0;
        let attention = 6.0 * 6.0 * 8.0 * 32.0 * 256.0;
        assert_eq!(flops_per_token(&shape_a(false), 256), 6.0 * matmul + attention);
        assert_eq!(flops_per_token(&shape_a(true), 256), flops_per_token(&shape_a(false), 256));
    }

    /// Windows of 8 tokens in rows of 32: a token sees 7.125 on average (36 of the first 8, then 8 each), in the limit of
    /// long rows 7, where a full layer has it see 16.
    #[test]
    fn windows_save_operations_and_norms_cost_memory() {
        let all = families(false);
        let [llama, mistral, qwen2, .., gemma3] = &all[..] else { panic!("{} families", all.len()) };
        let per_layer = 6.0 * 4.0 * 8.0;
        let saved = |config| flops_per_token(llama, 32) - flops_per_token(config, 32);
        assert_eq!(saved(mistral), 3.0 * per_layer * (32.0 - 14.0));
        assert_eq!(saved(qwen2), 2.0 * per_layer * (32.0 - 14.0));
        assert_eq!(flops_per_token(llama, 8), flops_per_token(mistral, 8));
        let memory =
            |config| activation_memory(config, 1, 32, Precision::F32, Kernels::Fused, Recompute::Nothing).blocks;
        // Two more norms a block over 24 elements, norms over 4 + 2 heads of 8, and a statistic of each.
        assert_eq!(memory(gemma3) - memory(llama), 32 * 3 * 4 * (2 * 24 + 6 * 8 + 2 + 6));
        assert_eq!(memory(mistral), memory(llama));
    }

    #[test]
    fn memory_grows_with_tokens_and_shrinks_with_fusion_and_bf16() {
        let of = |rows, precision, kernels| {
            activation_memory(&shape_a(false), rows, 256, precision, kernels, Recompute::Nothing)
        };
        let fused = of(8, Precision::F32, Kernels::Fused);
        let chunked = |rows| of(rows, Precision::F32, Kernels::Chunked);
        assert_eq!(chunked(8).blocks, fused.blocks);
        assert!(chunked(8).head > fused.head, "tensor operations need more room for a chunk");
        assert!(chunked(64).head < 2 * chunked(16).head, "but no more for many rows");
        assert_eq!(of(16, Precision::F32, Kernels::Fused).blocks, 2 * fused.blocks);
        // Two norms over 256 elements and a product of 704, in 6 layers.
        let joined = of(8, Precision::F32, Kernels::Joined);
        assert_eq!(fused.blocks - joined.blocks, 2048 * 6 * 4 * (2 * 256 + 704));
        let mixed = of(8, Precision::Bf16Mixed, Kernels::Fused);
        assert!(mixed.blocks < fused.blocks * 7 / 10);
        assert!(mixed.weight_copies > 0 && fused.weight_copies == 0);
        let twice = activation_memory(&shape_a(false), 8, 256, Precision::F32, Kernels::Fused, Recompute::Everything);
        assert!(twice.blocks < fused.blocks / 2 && twice.head == fused.head);
        let half = activation_memory(&shape_a(false), 8, 256, Precision::F32, Kernels::Fused, Recompute::EveryOther);
        assert!(twice.blocks < half.blocks && half.blocks < fused.blocks * 6 / 10);
    }

    /// Mixtral 8x7B: 46.7 billion parameters, 12.9 of them at work for a token (arXiv:2401.04088).
    #[test]
    fn experts_that_a_token_does_not_choose_cost_nothing() {
        let mut config = mixtral_tests::tiny();
        config.num_local_experts = 8;
        config.decoder = DecoderConfig {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 14_336,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            head_dim: 128,
            ..config.decoder
        };
        let (all, one) = (ModelConfig::Mixtral(config.clone()), ModelConfig::Llama(config.decoder));
        assert_eq!(count_parameters(&all).total(), 46_702_792_704);
        assert_eq!(count_active_parameters(&all), 12_879_925_248);
        assert_eq!(count_active_parameters(&one), count_parameters(&one).total());
        let expert = 3.0 * 4096.0 * 14_336.0 + 8.0 * 4096.0;
        assert_eq!(flops_per_token(&all, 512) - flops_per_token(&one, 512), 6.0 * 32.0 * expert);
        let of = |config| activation_memory(config, 1, 512, Precision::F32, Kernels::Fused, Recompute::Nothing).blocks;
        assert!(of(&all) > of(&one) * 3 / 2);
    }

    /// GPT-2 small: 124 million parameters.
    #[test]
    fn gpt2_has_the_known_size() {
        let config = Gpt2Config {
            vocab_size: 50_257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: 3072,
            ..gpt2_tests::tiny()
        };
        assert_eq!(count_parameters(&ModelConfig::Gpt2(config)).total(), 124_439_808);
    }
}
