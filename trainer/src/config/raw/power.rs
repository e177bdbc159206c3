//! Owns the keys that say when a run may draw power, as they are written; never asks for power.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a run may draw power. Outside of it the run saves, waits, and goes on by itself with the same bits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPowerWindow {
    /// Stretches of the day: ["08:30-17:00"]; one may cross midnight. Default: all day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &["08:30-17:00"])]
    pub hours: Option<Vec<String>>,
    /// Time zone of the hours, a name of the IANA database; it knows the hours of Ramadan too. Default: the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"Africa/Casablanca")]
    pub time_zone: Option<String>,
    /// A shell command that says whether there is power: exit code 0 yes, 1 no. It runs on the host of rank 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"/usr/local/bin/battery-above 40")]
    pub command: Option<String>,
    /// Seconds between two questions. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 60.0)]
    pub check_every: Option<f64>,
}

/// What is known of the energy of the machines of a run, for estimates and reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEnergy {
    /// What all machines of the run draw together while it trains, watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 65.0)]
    pub watts: Option<f64>,
    /// Carbon dioxide of a kilowatt-hour of this site's electricity, grams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 600.0)]
    pub co2_g_per_kwh: Option<f64>,
}
