//! Owns the keys about other processes and other sites, as they are written; never touches how they are joined.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the processes of a run watch each other. None of it changes a number of the run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCluster {
    /// ZeRO stage: 0 keeps gradients and optimizer state whole in every process, 1 divides the optimizer state among them,
    /// 2 the summed gradients as well. The numbers are the same. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1)]
    pub zero: Option<u8>,
    /// Megabytes of gradients that leave together while the backward pass goes on. Default: 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 25.0)]
    pub bucket_cap_mb: Option<f64>,
    /// Compare the digests of all replicas after every this many steps. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 100)]
    pub digest_steps: Option<u64>,
    /// Seconds without a heartbeat after which a process counts as lost. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 10.0)]
    pub peer_timeout: Option<f64>,
    /// Seconds that the others wait in a collective for a process that is alive but does not come. Default: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 600.0)]
    pub collective_timeout: Option<f64>,
    /// Seconds in which all processes must have come together at the start. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 300.0)]
    pub join_timeout: Option<f64>,
    /// How data travels between processes. Default: `auto`, sealed unless all are on one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"auto")]
    pub wire: Option<WireChoice>,
    /// What carries the data of collectives. Default: `auto`, the best engine of this binary that fits how the
    /// processes were started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"auto")]
    pub engine: Option<EngineChoice>,
}

/// What carries the data of collectives; the numbers are the same bits with any of them (`reduction: exact`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    /// `nccl` between CUDA devices, `mpi` under an MPI launcher, else `tcp`; of those that this binary has.
    #[default]
    Auto,
    /// Connections of our own.
    Tcp,
    /// The MPI library of the machine; feature `mpi`.
    Mpi,
    /// NVIDIA's library, between GPUs; feature `cuda`.
    Nccl,
}

/// How data travels between processes; who they are is proven in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WireChoice {
    /// Sealed unless all processes are on one host.
    #[default]
    Auto,
    /// Encrypted and authenticated.
    Sealed,
    /// As it is: on a private network only.
    Plain,
}

/// One site of several that train together over slow links, each on its own data (DiLoCo).
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawOuter {
    /// `HOST:PORT` of `jazari outer serve`.
    #[schemars(example = &"train.example.ma:29600")]
    pub coordinator: String,
    /// Name of this site, different at every site.
    #[schemars(example = &"rabat")]
    pub site: String,
    /// Steps that a site trains by itself between two rounds. The same at every site.
    #[schemars(example = 100)]
    pub sync_every: u64,
    /// What the coordinator makes of the sites' changes. Only nesterov, SGD with Nesterov momentum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"nesterov")]
    pub optimizer: Option<OuterOptimizer>,
    /// Its learning rate; 1 with a momentum of 0 is plain averaging. The same at every site. Default: 0.7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.7)]
    pub learning_rate: Option<f64>,
    /// Its momentum. The same at every site. Default: 0.9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.9)]
    pub momentum: Option<f64>,
    /// How parameters travel: int8 (about one byte each way for each parameter and round) or none (four). The same at
    /// every site. Default: int8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"int8")]
    pub compress: Option<OuterCompress>,
    /// Seconds without a word of the coordinator, when it is needed, after which the run saves and ends with code 75.
    /// Default: 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 3600.0)]
    pub give_up_after: Option<f64>,
}

/// Outer optimizers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OuterOptimizer {
    /// SGD with Nesterov momentum.
    #[default]
    Nesterov,
}

/// How parameters travel between sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OuterCompress {
    /// As 32-bit floats.
    None,
    /// As 8-bit integers in blocks with a scale, what rounding takes away being sent with the next round.
    #[default]
    Int8,
}
