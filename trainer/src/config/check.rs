//! Owns the rules that a training configuration must keep whatever the data set is: ranges, and keys that exclude each
//! other; never resolves a default and never touches the data set.

use std::net::SocketAddr;

use super::error::{ConfigError, Places};
use super::power;
use super::raw::{Family, OptimizerName, Precision, RawConfig, RawDataset, RawModel, SamplePacking, SchedulerName};
use super::units::BatchSize;
use crate::device::DeviceChoice;
use crate::expect::Expect;
use crate::outer::MAX_SITE_NAME;

/// The format version that this binary reads.
pub const CONFIG_VERSION: u32 = 1;
/// Longest row, tokens.
const MAX_SEQUENCE_LEN: usize = 1 << 20;
/// Most rows in one optimizer step.
const MAX_GLOBAL_ROWS: u64 = 1 << 24;
/// Most optimizer steps of a run.
const MAX_STEPS: u64 = 1_000_000_000;
/// Most tokens of a run (10^15; the largest published runs use 4·10^13).
const MAX_TOKENS: u64 = 1_000_000_000_000_000;
/// Most passes over a data set.
pub(super) const MAX_EPOCHS: f64 = 10_000.0;
/// Most CPU threads.
const MAX_THREADS: usize = 4096;
/// Longest that processes wait for each other: a week.
/// A terabyte.
const MAX_BUCKET_CAP_MB: f64 = 1e6;
const MAX_TIMEOUT_SECONDS: f64 = 604_800.0;
/// Longest that a site waits for its coordinator: a month.
const MAX_GIVE_UP_SECONDS: f64 = 2_592_000.0;
/// Most steps that the guard remembers.
const MAX_GUARD_WINDOW: usize = 1 << 20;

impl RawConfig {
    /// Checks every rule that needs neither the data set nor the base model.
    ///
    /// # Errors
    /// The first broken rule, with its place, its reason and what to write.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.config_version != CONFIG_VERSION {
            let message = format!("config_version {} is not known to this binary", self.config_version);
            let hint =
                format!("write `config_version: {CONFIG_VERSION}`, or use the Jazari that the file was written for");
            return Err(self.places.invalid("config_version", message, hint));
        }
        let rules = Rules { places: &self.places };
        self.check_start(&rules)?;
        self.check_adapter(&rules)?;
        self.check_data(&rules)?;
        self.check_batch(&rules)?;
        self.check_duration(&rules)?;
        self.check_optimizer(&rules)?;
        self.check_schedule(&rules)?;
        self.check_execution(&rules)?;
        self.check_outer(&rules)?;
        self.check_intervals(&rules)?;
        self.expect.as_ref().map_or(Ok(()), |expect| check_expect(expect, &rules))
    }

    fn check_start(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        if self.output_dir.as_os_str().is_empty() {
            return Err(rules.places.invalid(
                "output_dir",
                "`output_dir` is empty",
                "write for example `output_dir: runs/first`",
            ));
        }
        match (&self.base_model, &self.model) {
            (Some(_), Some(_)) => Err(rules.places.invalid(
                "model",
                "`model` and `base_model` are both written: fresh weights, or those of a trained model?",
                "keep `base_model` to continue from its weights, or `model` to start afresh",
            )),
            (None, None) => Err(rules.places.missing(
                "model",
                "neither `model` nor `base_model` is written",
                "add `model: {size: 10m}` for fresh weights, or `base_model: DIRECTORY` to continue from trained ones",
            )),
            (Some(path), None) if path.as_os_str().is_empty() => Err(rules.places.invalid(
                "base_model",
                "`base_model` is empty",
                "write the directory of a Hugging Face model",
            )),
            (Some(_), None) => Ok(()),
            (None, Some(model)) => check_model(model, rules),
        }
    }

    fn check_data(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        let example = "write `datasets: [{path: data/moroccan}]`, a directory made by `jazari data prepare`";
        match self.datasets.as_slice() {
            [] => return Err(rules.places.invalid("datasets", "`datasets` is empty", example)),
            [dataset] if dataset.path.as_os_str().is_empty() => {
                return Err(rules.places.invalid("datasets[0].path", "the path of the data set is empty", example));
            }
            [dataset] => {
                super::chat::check(self, dataset, rules.places)?;
                if dataset.weight.is_some_and(|weight| weight != 1.0) {
                    let message = "a weight has no effect with one data set";
                    let hint =
                        "delete it; weights of languages and sources are written under `mixture: {weights: ...}`";
                    return Err(rules.places.invalid("datasets[0].weight", message, hint));
                }
            }
            more => {
                super::chat::check_list(self, more, rules.places)?;
                check_several(more, rules)?;
            }
        }
        self.mixture.as_ref().map_or(Ok(()), |mixture| super::mixture::check(mixture, rules))
    }

    fn check_batch(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        let len = self.sequence_len;
        if !(2..=MAX_SEQUENCE_LEN).contains(&len) {
            let message = format!("`sequence_len` is {len}, outside 2 to {MAX_SEQUENCE_LEN} tokens");
            return Err(rules.places.invalid("sequence_len", message, "write for example `sequence_len: 1024`"));
        }
        if self.sample_packing == Some(SamplePacking::Off) {
            let message = "`sample_packing: false` is not part of this version: rows are always packed";
            let hint = "delete the line; packed documents never attend to each other";
            return Err(rules.places.invalid("sample_packing", message, hint));
        }
        rules.count(
            "micro_batch_size",
            self.micro_batch_size,
            1..=MAX_GLOBAL_ROWS,
            "sequences that go through the model at once",
        )?;
        rules.count(
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps,
            1..=MAX_GLOBAL_ROWS,
            "micro-batches in one step",
        )?;
        self.global_rows().map(|_| ())
    }

    /// Rows of one optimizer step, from whichever keys state them.
    ///
    /// # Errors
    /// When the keys do not state it, or contradict each other or `sequence_len`.
    pub(crate) fn global_rows(&self) -> Result<u64, ConfigError> {
        let places = &self.places;
        let stated = self.global_batch_size.map(|size| self.rows_of(size)).transpose()?;
        let product = match (self.micro_batch_size, self.gradient_accumulation_steps) {
            (Some(micro), Some(steps)) => Some(micro.saturating_mul(steps)),
            _ => None,
        };
        let rows = match (stated, product) {
            (Some(rows), Some(product)) if rows != product => {
                let message = format!(
                    "`micro_batch_size` × `gradient_accumulation_steps` is {product} sequences, \
                     but `global_batch_size` says {rows}"
                );
                let hint = "delete `gradient_accumulation_steps`: it follows from the other two";
                return Err(places.invalid("gradient_accumulation_steps", message, hint));
            }
            (Some(rows), _) => rows,
            (None, Some(product)) => product,
            (None, None) => {
                let hint = "add `global_batch_size: 32 seq`, what one optimizer step trains on over all processes";
                return Err(places.missing("global_batch_size", "`global_batch_size` is missing", hint));
            }
        };
        if !(1..=MAX_GLOBAL_ROWS).contains(&rows) {
            let message = format!("one step would train on {rows} sequences, outside 1 to {MAX_GLOBAL_ROWS}");
            return Err(places.invalid("global_batch_size", message, "write for example `global_batch_size: 32 seq`"));
        }
        if let Some(micro) = self.micro_batch_size
            && !rows.is_multiple_of(micro)
        {
            let message = format!("`micro_batch_size` {micro} does not divide the global batch of {rows} sequences");
            let hint = format!("write {}", nearest_divisors(rows, micro));
            return Err(places.invalid("micro_batch_size", message, hint));
        }
        Ok(rows)
    }

    fn rows_of(&self, size: BatchSize) -> Result<u64, ConfigError> {
        let len = self.sequence_len as u64;
        match size {
            BatchSize::Sequences(rows) => Ok(rows),
            BatchSize::Tokens(tokens) if len > 0 && tokens > 0 && tokens.is_multiple_of(len) => Ok(tokens / len),
            BatchSize::Tokens(tokens) => {
                let below = tokens / len.max(1);
                let message =
                    format!("`global_batch_size` of {tokens} tokens is not a whole number of sequences of {len}");
                let above = below.saturating_add(1);
                let choice = |rows: u64| format!("`{} tok` ({rows} seq)", rows.saturating_mul(len));
                let hint = match below {
                    0 => format!("write {}", choice(1)),
                    _ => format!("write {} or {}", choice(below), choice(above)),
                };
                Err(self.places.invalid("global_batch_size", message, hint))
            }
        }
    }

    fn check_duration(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        let written: Vec<&str> = [
            ("max_steps", self.max_steps.is_some()),
            ("max_tokens", self.max_tokens.is_some()),
            ("num_epochs", self.num_epochs.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_written)| is_written.then_some(name))
        .collect();
        match written.as_slice() {
            [_] => {}
            [] => {
                let message = "nothing says how long to train";
                let hint = "add exactly one of `max_steps: 1000`, `max_tokens: 300 MTok` and `num_epochs: 1`";
                return Err(rules.places.missing("max_steps", message, hint));
            }
            [first, second, ..] => {
                let message = format!("`{first}` and `{second}` both say how long to train");
                return Err(rules.places.invalid(second, message, "keep one of them"));
            }
        }
        rules.count("max_steps", self.max_steps, 1..=MAX_STEPS, "optimizer steps of the run")?;
        rules.count("max_tokens", self.max_tokens.map(|tokens| tokens.0), 1..=MAX_TOKENS, "tokens to train on")?;
        rules.above_zero("num_epochs", self.num_epochs, MAX_EPOCHS, "passes over the data set")
    }

    fn check_optimizer(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        rules.above_zero(
            "learning_rate",
            Some(self.learning_rate),
            1.0,
            "AdamW moves each weight by about this much a step",
        )?;
        if let Some([beta1, beta2]) = self.betas {
            for (path, beta) in [("betas[0]", beta1), ("betas[1]", beta2)] {
                if !(0.0..1.0).contains(&beta) {
                    let message =
                        format!("`{path}` is {beta}; it must be from 0 to below 1, or the average never moves");
                    return Err(rules.places.invalid(path, message, "write for example `betas: [0.9, 0.95]`"));
                }
            }
        }
        self.check_muon(rules)?;
        rules.above_zero("eps", self.eps, 1.0, "it keeps the division by the second moment finite")?;
        rules.number(
            "weight_decay",
            self.weight_decay,
            0.0..=1.0,
            "it is multiplied with the learning rate at each step",
        )?;
        rules.number(
            "max_grad_norm",
            self.max_grad_norm,
            0.0..=1e6,
            "gradients are scaled down to this norm; 0 switches it off",
        )?;
        let meaning = "it weighs the loss that keeps experts equally busy; 0 leaves it out";
        rules.number("router_aux_loss_coef", self.router_aux_loss_coef, 0.0..=1e3, meaning)
    }

    fn check_muon(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        if let Some(momentum) = self.muon_momentum {
            if self.optimizer != Some(OptimizerName::Muon) {
                let message = "`muon_momentum` is for `optimizer: muon`, which is not the optimizer here".to_owned();
                return Err(rules.places.invalid("muon_momentum", message, "delete it or write `optimizer: muon`"));
            }
            if !(0.0..1.0).contains(&momentum) {
                let message = format!("`muon_momentum` is {momentum}; it must be from 0 to below 1");
                return Err(rules.places.invalid("muon_momentum", message, "write for example `muon_momentum: 0.95`"));
            }
        }
        Ok(())
    }

    fn check_schedule(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        let scheduler = self.lr_scheduler.unwrap_or_default();
        if self.warmup_steps.is_some() && self.warmup_ratio.is_some() {
            let message = "`warmup_steps` and `warmup_ratio` both say how long to warm up";
            return Err(rules.places.invalid("warmup_ratio", message, "keep one of them"));
        }
        if self.min_lr_ratio.is_some() && self.min_lr.is_some() {
            let message = "`min_lr` and `min_lr_ratio` both say where the learning rate ends";
            return Err(rules.places.invalid("min_lr", message, "keep one of them"));
        }
        let has_no_effect = [
            ("min_lr_ratio", self.min_lr_ratio.is_some() && scheduler == SchedulerName::Constant),
            ("min_lr", self.min_lr.is_some() && scheduler == SchedulerName::Constant),
            ("decay_ratio", self.decay_ratio.is_some() && scheduler != SchedulerName::Wsd),
        ];
        if let Some((path, _)) = has_no_effect.into_iter().find(|(_, is_idle)| *is_idle) {
            let message = format!("`{path}` has no effect with `lr_scheduler: {}`", scheduler.name());
            let hint = "delete the line, or choose another `lr_scheduler`";
            return Err(rules.places.invalid(path, message, hint));
        }
        let none = self.warmup_steps == Some(0) || self.warmup_ratio == Some(0.0);
        if none && self.warmup_start_ratio.is_some() {
            let message = "`warmup_start_ratio` has no effect without a warm-up";
            return Err(rules.places.invalid(
                "warmup_start_ratio",
                message,
                "delete the line, or write `warmup_steps`",
            ));
        }
        rules.number("warmup_start_ratio", self.warmup_start_ratio, 0.0..=1.0, "it is a share of `learning_rate`")?;
        rules.number("warmup_ratio", self.warmup_ratio, 0.0..=1.0, "it is a share of all steps")?;
        rules.number("min_lr_ratio", self.min_lr_ratio, 0.0..=1.0, "it is a share of `learning_rate`")?;
        rules.number("min_lr", self.min_lr, 0.0..=self.learning_rate, "the rate falls from `learning_rate` to it")?;
        rules.above_zero("decay_ratio", self.decay_ratio, 1.0, "it is a share of all steps")
    }

    fn check_execution(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        if self.precision == Some(Precision::Bf16Mixed) && self.device == Some(DeviceChoice::Cpu) {
            return Err(bf16_on_cpu(rules.places));
        }
        rules.count("threads", self.threads.map(|threads| threads as u64), 1..=MAX_THREADS as u64, "CPU threads")?;
        if let Some(cluster) = &self.cluster {
            let zero = cluster.zero.map(u64::from);
            rules.count("cluster.zero", zero, 0..=2, "the stage; parameters are not divided")?;
            let cap = cluster.bucket_cap_mb;
            rules.above_zero("cluster.bucket_cap_mb", cap, MAX_BUCKET_CAP_MB, "megabytes that leave together")?;
            rules.count("cluster.digest_steps", cluster.digest_steps, 1..=MAX_STEPS, "an interval in steps")?;
            for (path, value) in [
                ("cluster.peer_timeout", cluster.peer_timeout),
                ("cluster.collective_timeout", cluster.collective_timeout),
                ("cluster.join_timeout", cluster.join_timeout),
            ] {
                rules.above_zero(path, value, MAX_TIMEOUT_SECONDS, "a time in seconds")?;
            }
        }
        if let Some(window) = &self.power_window {
            power::check(window, rules)?;
        }
        if let Some(address) = self.prometheus.as_ref().filter(|address| address.parse::<SocketAddr>().is_err()) {
            let message = format!("`prometheus` is `{address}`, which is no address and port");
            return Err(rules.places.invalid("prometheus", message, "write `127.0.0.1:9464`, or delete the line"));
        }
        if let Some(energy) = &self.energy {
            rules.above_zero("energy.watts", energy.watts, MAX_WATTS, "what all machines of the run draw together")?;
            rules.number("energy.co2_g_per_kwh", energy.co2_g_per_kwh, 0.0..=MAX_CO2, "grams for a kilowatt-hour")?;
        }
        let Some(guard) = &self.guard else { return Ok(()) };
        rules.above_zero(
            "guard.outlier_sigma",
            guard.outlier_sigma,
            1e6,
            "standard deviations above the recent mean",
        )?;
        let window = guard.window.map(|window| window as u64);
        rules.count("guard.window", window, 2..=MAX_GUARD_WINDOW as u64, "a deviation needs two steps or more")?;
        let skips = guard.max_consecutive_skips.map(u64::from);
        rules.count(
            "guard.max_consecutive_skips",
            skips,
            1..=u64::from(u32::MAX),
            "the run stops at this many in a row",
        )
    }

    fn check_outer(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        let Some(outer) = &self.outer else { return Ok(()) };
        let has_port = |at: &str| {
            at.rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse().is_ok_and(|port: u16| port > 0))
        };
        if !has_port(&outer.coordinator) {
            let message =
                format!("`outer.coordinator` is '{}', not HOST:PORT", super::error::shown(&outer.coordinator));
            let hint = "write the address that `jazari outer serve` listens at, for example train.example.ma:29600";
            return Err(rules.places.invalid("outer.coordinator", message, hint));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if outer.site.is_empty() || outer.site.len() > MAX_SITE_NAME || !outer.site.chars().all(is_name) {
            let message = format!("`outer.site` is '{}', no name of a site", super::error::shown(&outer.site));
            let hint = format!("write 1 to {MAX_SITE_NAME} of the characters a-z, A-Z, 0-9, '-', '_' and '.'");
            return Err(rules.places.invalid("outer.site", message, hint));
        }
        rules.count("outer.sync_every", Some(outer.sync_every), 1..=MAX_STEPS, "an interval in steps")?;
        rules.above_zero("outer.learning_rate", outer.learning_rate, 2.0, "it scales the average of the changes")?;
        rules.number("outer.momentum", outer.momentum, 0.0..=0.999, "the share of the last round that is kept")?;
        rules.above_zero("outer.give_up_after", outer.give_up_after, MAX_GIVE_UP_SECONDS, "a time in seconds")
    }

    fn check_intervals(&self, rules: &Rules<'_>) -> Result<(), ConfigError> {
        let why = "an interval in steps";
        rules.count("eval_steps", self.eval_steps, 1..=MAX_STEPS, why)?;
        rules.count("save_steps", self.save_steps, 1..=MAX_STEPS, why)?;
        rules.count("logging_steps", self.logging_steps, 1..=MAX_STEPS, why)?;
        if let Some(limit @ 0..=1) = self.save_total_limit {
            let message =
                format!("`save_total_limit` is {limit}: with fewer than 2, one damaged checkpoint loses the run");
            return Err(rules.places.invalid("save_total_limit", message, "write `save_total_limit: 2` or more"));
        }
        let eval = self.eval.as_ref().and_then(|eval| eval.max_tokens_per_language);
        rules.count("eval.max_tokens_per_language", eval, 1..=MAX_TOKENS, "held-out tokens to score")
    }
}

/// Why bf16 is refused on the CPU; also raised when `device: auto` turns out to be one.
pub(crate) fn bf16_on_cpu(places: &Places) -> ConfigError {
    places.invalid(
        "precision",
        "`precision: bf16-mixed` needs a GPU: on the CPU bf16 arithmetic is emulated, slower and less exact than fp32",
        "write `precision: fp32`, or `device: cuda:0`",
    )
}

/// Several data sets: different folders, and weights for all of them or for none.
fn check_several(datasets: &[RawDataset], rules: &Rules<'_>) -> Result<(), ConfigError> {
    let weighed = datasets.iter().filter(|dataset| dataset.weight.is_some()).count();
    for (i, dataset) in datasets.iter().enumerate() {
        let path = format!("datasets[{i}].path");
        if dataset.path.as_os_str().is_empty() {
            return Err(rules.places.invalid(&path, "the path of the data set is empty", "write its directory"));
        }
        if datasets.iter().take(i).any(|other| other.path == dataset.path) {
            let hint = "name it once; weights repeat a data set more often than another";
            return Err(rules.places.invalid(&path, "the data set is listed twice", hint));
        }
        let weight = format!("datasets[{i}].weight");
        rules.above_zero(&weight, dataset.weight, 1e6, "a share of the training rows against the other data sets")?;
        if dataset.weight.is_none() && weighed > 0 {
            let message = "this data set has no weight, another has one";
            let hint = "write a weight for each, such as 0.8 and 0.2, or for none";
            return Err(rules.places.missing(&weight, message, hint));
        }
    }
    Ok(())
}

fn check_model(model: &RawModel, rules: &Rules<'_>) -> Result<(), ConfigError> {
    let sizes = [
        ("hidden_size", model.hidden_size),
        ("intermediate_size", model.intermediate_size),
        ("num_hidden_layers", model.num_hidden_layers),
        ("num_attention_heads", model.num_attention_heads),
        ("num_key_value_heads", model.num_key_value_heads),
        ("head_dim", model.head_dim),
        ("vocab_size", model.vocab_size),
        ("max_position_embeddings", model.max_position_embeddings),
        ("sliding_window", model.sliding_window),
    ];
    for (name, size) in sizes {
        let path = format!("model.{name}");
        rules.count(&path, size.map(|size| size as u64), 1..=1 << 31, "a dimension of the model")?;
        let is_needed = matches!(name, "hidden_size" | "num_hidden_layers" | "num_attention_heads");
        if is_needed && size.is_none() && model.size.is_none() {
            let hint =
                "add `size: 10m` for a preset, or write `hidden_size`, `num_hidden_layers` and `num_attention_heads`";
            return Err(rules.places.missing(&path, format!("`{path}` is missing, and no preset gives it"), hint));
        }
    }
    super::experts::check_model(model, rules)?;
    if model.sliding_window.is_some() && !matches!(model.family, Some(Family::Mistral | Family::Mixtral)) {
        let message = "only a Mistral or Mixtral has a window";
        return Err(rules.places.invalid("model.sliding_window", message, "delete it, or write `family: mistral`"));
    }
    rules.above_zero("model.rope_theta", model.rope_theta, 1e12, "it is the base of the rotary frequencies")?;
    rules.above_zero("model.rms_norm_eps", model.rms_norm_eps, 1.0, "it keeps the normalisation finite")?;
    rules.above_zero("model.initializer_range", model.initializer_range, 10.0, "it is a standard deviation")
}

fn check_expect(expect: &Expect, rules: &Rules<'_>) -> Result<(), ConfigError> {
    rules.above_zero("expect.final_loss_below", expect.final_loss_below, 1e3, "a loss in nats a token")?;
    rules.above_zero("expect.loss_drop_at_least", expect.loss_drop_at_least, 1e3, "a loss in nats a token")?;
    for (language, bound) in &expect.val_bpb_below {
        let path = format!("expect.val_bpb_below.{language}");
        rules.above_zero(&path, Some(*bound), 1e3, "bits per byte")?;
    }
    for (language, limit) in &expect.max_regression {
        let path = format!("expect.max_regression.{language}");
        rules.number(&path, Some(*limit), 0.0..=10.0, "a rise as a share: 0.05 is 5 %")?;
    }
    Ok(())
}

/// The largest divisor of `rows` up to `micro` and the smallest beyond, in words.
fn nearest_divisors(rows: u64, micro: u64) -> String {
    let below = (1..=micro.min(rows)).rev().find(|divisor| rows.is_multiple_of(*divisor)).unwrap_or(1);
    match (micro..=rows).find(|divisor| rows.is_multiple_of(*divisor)) {
        Some(above) => format!("{below} or {above}"),
        None => below.to_string(),
    }
}

/// No machine room for one run draws more, watts.
const MAX_WATTS: f64 = 1e9;
/// Electricity from the poorest coal has less, grams of carbon dioxide a kilowatt-hour.
const MAX_CO2: f64 = 5_000.0;

/// Range checks that name the key, the range and the reason.
pub(super) struct Rules<'a> {
    pub(super) places: &'a Places,
}

impl Rules<'_> {
    pub(super) fn number(
        &self,
        path: &str,
        value: Option<f64>,
        range: std::ops::RangeInclusive<f64>,
        why: &str,
    ) -> Result<(), ConfigError> {
        match value {
            Some(value) if !range.contains(&value) => {
                let (low, high) = (range.start(), range.end());
                let message = format!("`{path}` is {value}; it must be from {low} to {high}: {why}");
                Err(self.places.invalid(path, message, format!("write a number from {low} to {high}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn above_zero(&self, path: &str, value: Option<f64>, max: f64, why: &str) -> Result<(), ConfigError> {
        match value {
            Some(value) if !(value > 0.0 && value <= max) => {
                let message = format!("`{path}` is {value}; it must be above 0 and at most {max}: {why}");
                Err(self.places.invalid(path, message, format!("write a number above 0 and at most {max}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn count(
        &self,
        path: &str,
        value: Option<u64>,
        range: std::ops::RangeInclusive<u64>,
        why: &str,
    ) -> Result<(), ConfigError> {
        match value {
            Some(value) if !range.contains(&value) => {
                let (low, high) = (range.start(), range.end());
                let message = format!("`{path}` is {value}; it must be from {low} to {high}: {why}");
                Err(self.places.invalid(path, message, format!("write a whole number from {low} to {high}")))
            }
            _ => Ok(()),
        }
    }
}
