//! Owns the keys of how the data is mixed and packed, as they are written; never touches the data.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::config::units::StageEnd;

/// How languages, sources and licences share the training rows.
#[derive(Clone, Debug, Default, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawMixture {
    /// Share of a language ∝ (its tokens)^temperature: 1 keeps the natural shares, 0 makes all equal. Default: 0.7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.7)]
    pub temperature: Option<f64>,
    /// Factors on those shares, by language (`ary_Arab`), source in a language (`ary_Arab/doda-mit`) or source
    /// (`*/doda-mit`); 0 leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = BTreeMap::from([("ary_Arab", 2.0)]))]
    pub weights: Option<BTreeMap<String, f64>>,
    /// Most times that a document may be repeated over the run. Default: 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 8.0)]
    pub max_epochs: Option<f64>,
    /// Bounds by language (`zgh_Tfng`), script (`*_Tfng`), source in a language (`ary_Arab/doda-mit`), source
    /// (`*/doda-mit`) or licence (`licence:CC-BY-SA-*`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = BTreeMap::from([("zgh_Tfng", BTreeMap::from([("min_share", 0.05)]))]))]
    pub quotas: Option<BTreeMap<String, RawQuota>>,
    /// Parts of the run with shares of their own, in order. What a stage does not write is that of the mixture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = [BTreeMap::from([("until", "40%")])])]
    pub stages: Option<Vec<RawStage>>,
}

/// Bounds on a part of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawQuota {
    /// Least share of the rows, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.05)]
    pub min_share: Option<f64>,
    /// Largest share of the rows, above 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.3)]
    pub max_share: Option<f64>,
    /// Most times that its documents may be repeated over the run, instead of the mixture's `max_epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 16.0)]
    pub max_epochs: Option<f64>,
}

/// A part of the run.
#[derive(Clone, Debug, Default, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStage {
    /// Where it ends: `40%` of the steps, or a number of steps. The last stage ends with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"40%")]
    pub until: Option<StageEnd>,
    /// Instead of the mixture's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.5)]
    pub temperature: Option<f64>,
    /// Instead of the mixture's, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = BTreeMap::from([("ary_Arab", 2.0)]))]
    pub weights: Option<BTreeMap<String, f64>>,
    /// Bounds on shares; each takes the place of the mixture's of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = BTreeMap::from([("zgh_Tfng", BTreeMap::from([("min_share", 0.1)]))]))]
    pub quotas: Option<BTreeMap<String, RawQuota>>,
}

/// How documents fill rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SamplePacking {
    /// A document a row, which is not offered.
    Off,
    /// One after another, cut where a row is full.
    #[default]
    Sequential,
    /// Whole where they fit.
    BestFit,
}

impl Serialize for SamplePacking {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::Sequential => serializer.serialize_bool(true),
            Self::BestFit => serializer.serialize_str("best_fit"),
        }
    }
}

impl<'de> Deserialize<'de> for SamplePacking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PackingVisitor;
        impl Visitor<'_> for PackingVisitor {
            type Value = SamplePacking;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true` or `best_fit`")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<SamplePacking, E> {
                Ok(if on { SamplePacking::Sequential } else { SamplePacking::Off })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SamplePacking, E> {
                match text {
                    "best_fit" => Ok(SamplePacking::BestFit),
                    "sequential" => Ok(SamplePacking::Sequential),
                    _ => Err(E::unknown_variant(text, &["true", "best_fit", "sequential"])),
                }
            }
        }
        deserializer.deserialize_any(PackingVisitor)
    }
}

impl JsonSchema for SamplePacking {
    fn schema_name() -> Cow<'static, str> {
        "SamplePacking".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How documents fill rows.",
            "enum": [true, "best_fit", "sequential"]
        })
    }
}
