//! Owns the way from a plan back to a configuration, every value written out; never decides anything.

use super::{ClusterPlan, DatasetPlan, OuterPlan, PartPlan, Plan};
use crate::config::adapter;
use crate::config::check::CONFIG_VERSION;
use crate::config::error::ConfigError;
use crate::config::fresh::raw_model;
use crate::config::power;
use crate::config::raw::{
    RawChat, RawCluster, RawConfig, RawDataset, RawEval, RawGuard, RawOuter, SamplePacking, SchedulerName,
};
use crate::config::units::BatchSize;
use crate::preference::Objective;
use crate::schedule::Schedule;

impl Plan {
    /// The plan as a configuration with every value written out; resolving it against the same data set and base model
    /// gives a plan with the same digest.
    pub fn to_raw(&self) -> RawConfig {
        let (min, warmup_steps) = (self.schedule_min(), self.schedule.warmup_steps());
        let decay_ratio = match self.schedule {
            Schedule::Wsd { decay_steps, total_steps, .. } => Some(decay_steps as f64 / total_steps.max(1) as f64),
            _ => None,
        };
        RawConfig {
            config_version: CONFIG_VERSION,
            output_dir: self.output_dir.clone(),
            seed: Some(self.seed),
            base_model: self.base_model.clone(),
            model: if self.base_model.is_none() { raw_model(&self.model) } else { None },
            datasets: self.dataset.to_raw(),
            mixture: Some(self.mixture.to_raw()),
            chat: self
                .dataset
                .chat
                .as_ref()
                .map(|chat| RawChat { excess_length_strategy: Some(chat.excess), ..RawChat::default() }),
            objective: self.objective.map(Objective::to_raw),
            sequence_len: self.sequence_len,
            sample_packing: Some(if self.best_fit.is_some() {
                SamplePacking::BestFit
            } else {
                SamplePacking::Sequential
            }),
            global_batch_size: Some(BatchSize::Sequences(self.global_batch_rows)),
            micro_batch_size: Some(self.micro_batch_rows),
            max_steps: Some(self.max_steps),
            optimizer: Some(self.optimizer),
            learning_rate: self.schedule.peak(),
            muon_momentum: self.adamw.muon_momentum,
            betas: Some([self.adamw.beta1, self.adamw.beta2]),
            eps: Some(self.adamw.eps),
            weight_decay: Some(self.adamw.weight_decay),
            max_grad_norm: Some(self.adamw.max_grad_norm.unwrap_or(0.0)),
            router_aux_loss_coef: self.router_aux_loss_coef,
            lr_scheduler: Some(self.scheduler_name()),
            warmup_steps: Some(warmup_steps),
            warmup_start_ratio: Some(self.warmup_start_ratio).filter(|ratio| *ratio > 0.0),
            min_lr: min,
            decay_ratio,
            precision: Some(self.precision),
            gradient_checkpointing: Some(self.gradient_checkpointing),
            device: Some(self.device),
            threads: self.threads,
            reduction: Some(self.reduction),
            guard: Some(RawGuard {
                outlier_sigma: Some(self.guard.outlier_sigma),
                window: Some(self.guard.window),
                max_consecutive_skips: Some(self.guard.max_consecutive_skips),
            }),
            cluster: Some(self.cluster.to_raw()),
            energy: self.energy,
            power_window: self.power_window.as_ref().map(power::written),
            outer: self.outer.as_ref().map(OuterPlan::to_raw),
            eval_steps: Some(self.eval_steps),
            eval: Some(RawEval { max_tokens_per_language: Some(self.eval.max_tokens_per_language) }),
            save_steps: Some(self.save_steps),
            save_total_limit: Some(self.save_total_limit),
            logging_steps: Some(self.logging_steps),
            tensorboard: self.tensorboard.then_some(true),
            prometheus: self.prometheus.clone(),
            expect: (!self.expect.is_empty()).then(|| self.expect.clone()),
            ..adapter::written(self.adapter.as_ref())
        }
    }

    /// [`Plan::to_raw`] as YAML, for `config.resolved.yaml`.
    ///
    /// # Errors
    /// A path of the plan is not UTF-8.
    pub fn resolved_yaml(&self) -> Result<String, ConfigError> {
        let body = serde_saphyr::to_string(&self.to_raw()).map_err(|error| {
            let message = format!("the resolved configuration cannot be written as YAML: {error}");
            self.places.invalid("output_dir", message, "use paths that are valid UTF-8")
        })?;
        let digest = self.digest();
        Ok(format!(
            "# Every value of this run, defaults included. `jazari train` accepts this file.\n# Plan {digest}\n{body}"
        ))
    }

    fn scheduler_name(&self) -> SchedulerName {
        match self.schedule {
            Schedule::Cosine { .. } => SchedulerName::Cosine,
            Schedule::Wsd { .. } => SchedulerName::Wsd,
            Schedule::Linear { .. } => SchedulerName::Linear,
            Schedule::Constant { .. } => SchedulerName::Constant,
        }
    }

    fn schedule_min(&self) -> Option<f64> {
        match self.schedule {
            Schedule::Cosine { min, .. } | Schedule::Wsd { min, .. } | Schedule::Linear { min, .. } => Some(min),
            Schedule::Constant { .. } => None,
        }
    }
}

impl DatasetPlan {
    fn to_raw(&self) -> Vec<RawDataset> {
        if self.parts.is_empty() {
            return vec![RawDataset { path: self.path.clone(), ..RawDataset::default() }];
        }
        let written =
            |part: &PartPlan| RawDataset { path: part.path.clone(), weight: part.weight, ..RawDataset::default() };
        self.parts.iter().map(written).collect()
    }
}

impl ClusterPlan {
    fn to_raw(self) -> RawCluster {
        RawCluster {
            zero: Some(self.zero),
            bucket_cap_mb: Some(self.bucket_cap_mb),
            digest_steps: Some(self.digest_steps),
            peer_timeout: Some(self.peer_timeout),
            collective_timeout: Some(self.collective_timeout),
            join_timeout: Some(self.join_timeout),
            wire: Some(self.wire),
            engine: Some(self.engine),
        }
    }
}

impl OuterPlan {
    fn to_raw(&self) -> RawOuter {
        RawOuter {
            coordinator: self.coordinator.clone(),
            site: self.site.clone(),
            sync_every: self.sync_every,
            optimizer: Some(self.optimizer),
            learning_rate: Some(self.learning_rate),
            momentum: Some(self.momentum),
            compress: Some(self.compress),
            give_up_after: Some(self.give_up_after),
        }
    }
}
