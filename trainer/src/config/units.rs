//! Owns quantities that are written with a unit; never knows the rest of the configuration.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use super::error::shown;

/// Units of a number of tokens and what they multiply by: k is 1000, Ki is 1024.
const TOKEN_UNITS: [(&str, u64); 7] = [
    ("tok", 1),
    ("kTok", 1_000),
    ("KiTok", 1 << 10),
    ("MTok", 1_000_000),
    ("MiTok", 1 << 20),
    ("GTok", 1_000_000_000),
    ("GiTok", 1 << 30),
];

/// How much one optimizer step trains on, over all processes: `32 seq`, `64 KiTok`, `131072 tok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// A number of rows, each `sequence_len` tokens long.
    Sequences(u64),
    /// A number of tokens; a multiple of `sequence_len`.
    Tokens(u64),
}

/// A number of tokens: `300000000`, `300 MTok` or `2 GiTok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCount(pub u64);

/// Where a stage of a run ends: `40%` of the steps, or a number of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StageEnd {
    /// Hundredths of all steps.
    Percent(f64),
    /// Steps from the beginning of the run.
    Steps(u64),
}

impl StageEnd {
    /// The number of steps from the beginning of a run of `max_steps`.
    pub fn steps(self, max_steps: u64) -> u64 {
        match self {
            StageEnd::Percent(percent) => (max_steps as f64 * percent / 100.0).round() as u64,
            StageEnd::Steps(steps) => steps,
        }
    }
}

/// Why a text is not such a quantity; `Display` ends in a `hint:` line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\nhint: {hint}")]
pub struct UnitError {
    message: String,
    hint: String,
}

impl UnitError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        UnitError { message: message.into(), hint: hint.into() }
    }
}

/// A number and a unit, with or without a space between them; `_` may group digits.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number = digits.replace('_', "").parse().ok()?;
    Some((number, unit.trim_start()))
}

fn tokens(number: u64, unit: &str) -> Option<Result<u64, UnitError>> {
    let (name, factor) = TOKEN_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let too_many = || UnitError::new(format!("{number} {name} is beyond 2^64 tokens"), "write a smaller number");
    Some(number.checked_mul(*factor).ok_or_else(too_many))
}

fn token_unit_names() -> String {
    TOKEN_UNITS.map(|(name, _)| format!("`{name}`")).join(", ")
}

impl FromStr for BatchSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let hint =
            format!("write `32 seq` for sequences or `64 KiTok` for tokens (units: `seq`, {})", token_unit_names());
        let Some((number, unit)) = split(text) else {
            let message = format!("`{}` is not a whole number and a unit", shown(text));
            return Err(UnitError::new(message, hint));
        };
        if unit.is_empty() {
            return Err(BatchSize::without_unit(number));
        }
        if unit.eq_ignore_ascii_case("seq") {
            return Ok(BatchSize::Sequences(number));
        }
        match tokens(number, unit) {
            Some(count) => count.map(BatchSize::Tokens),
            None => Err(UnitError::new(format!("`{}` is not a unit of batch size", shown(unit)), hint)),
        }
    }
}

impl BatchSize {
    fn without_unit(number: u64) -> UnitError {
        UnitError::new(
            format!("{number} has no unit, and tools disagree on whether a batch size counts sequences or tokens"),
            format!("write `{number} seq` for {number} sequences, or `{number} tok` for {number} tokens"),
        )
    }
}

impl fmt::Display for BatchSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchSize::Sequences(count) => write!(f, "{count} seq"),
            BatchSize::Tokens(count) => write!(f, "{count} tok"),
        }
    }
}

impl FromStr for TokenCount {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let hint = format!("write a whole number, alone or with one of {}", token_unit_names());
        match split(text) {
            Some((number, "")) => Ok(TokenCount(number)),
            Some((number, unit)) => match tokens(number, unit) {
                Some(count) => count.map(TokenCount),
                None => Err(UnitError::new(format!("`{}` is not a unit of tokens", shown(unit)), hint)),
            },
            None => Err(UnitError::new(format!("`{}` is not a number of tokens", shown(text)), hint)),
        }
    }
}

impl fmt::Display for TokenCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tok", self.0)
    }
}

impl FromStr for StageEnd {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let hint = "write a share of the run such as `40%`, or a number of steps";
        let wrong = || UnitError::new(format!("`{}` is no part of a run", shown(text)), hint);
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
                if percent > 0.0 && percent <= 100.0 { Ok(StageEnd::Percent(percent)) } else { Err(wrong()) }
            }
            None => match split(text) {
                Some((steps, "")) => Ok(StageEnd::Steps(steps)),
                _ => Err(wrong()),
            },
        }
    }
}

impl fmt::Display for StageEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageEnd::Percent(percent) => write!(f, "{percent}%"),
            StageEnd::Steps(steps) => write!(f, "{steps}"),
        }
    }
}

macro_rules! written_as_text {
    ($type:ident, $expecting:literal, bare: $bare:expr, schema: $schema:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextVisitor;
                impl Visitor<'_> for TextVisitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        let bare: fn(u64) -> Result<$type, UnitError> = $bare;
                        bare(number).map_err(E::custom)
                    }

                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$type, E> {
                        // `3e8` is a whole number that YAML reads as a float.
                        if number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number) {
                            return self.visit_u64(number as u64);
                        }
                        Err(E::invalid_type(de::Unexpected::Float(number), &self))
                    }
                }
                deserializer.deserialize_any(TextVisitor)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

written_as_text!(StageEnd, "a share of the run such as `40%`, or a number of steps",
bare: |number| Ok(StageEnd::Steps(number)),
schema: {
    "description": "Where a stage ends: a share of all steps (`40%`), or a number of steps.",
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^ *[0-9_.]+ *%? *$"}
    ],
    "examples": ["40%"]
});

written_as_text!(BatchSize, "a number and its unit, such as `32 seq` or `64 KiTok`",
bare: |number| Err(BatchSize::without_unit(number)),
schema: {
    "type": "string",
    "description": "A whole number and its unit: sequences (`seq`) or tokens (`tok`, `KiTok`, `MTok`, `MiTok`...).",
    "pattern": "^ *[0-9_]+ *([sS][eE][qQ]|([kKmMgG][iI]?)?[tT][oO][kK]) *$",
    "examples": ["32 seq", "64 KiTok"]
});

written_as_text!(TokenCount, "a number of tokens, such as `300000000` or `300 MTok`",
bare: |number| Ok(TokenCount(number)),
schema: {
    "description": "A number of tokens, alone or with a unit (`tok`, `kTok`, `KiTok`, `MTok`, `MiTok`, `GTok`...).",
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^ *[0-9_]+ *(([kKmMgG][iI]?)?[tT][oO][kK])? *$"}
    ],
    "examples": ["300 MTok"]
});

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn batch_sizes_carry_their_unit() {
        for (text, size) in [
            ("32 seq", BatchSize::Sequences(32)),
            ("32seq", BatchSize::Sequences(32)),
            ("64 KiTok", BatchSize::Tokens(65_536)),
            ("64 kitok", BatchSize::Tokens(65_536)),
            ("64 kTok", BatchSize::Tokens(64_000)),
            ("131_072 tok", BatchSize::Tokens(131_072)),
            ("2 MiTok", BatchSize::Tokens(2_097_152)),
        ] {
            assert_eq!(text.parse(), Ok(size), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        }
        for (text, word) in [
            ("32", "`32 seq` for 32 sequences, or `32 tok`"),
            ("", "not a whole number"),
            ("-3 seq", "not a whole number"),
            ("1.5 MTok", "not a unit"),
            ("32 rows", "not a unit"),
            ("18446744073709551615 GiTok", "2^64"),
            ("99999999999999999999 seq", "not a whole number"),
        ] {
            let error = text.parse::<BatchSize>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn token_counts_may_be_bare() {
        assert_eq!("1000".parse(), Ok(TokenCount(1000)));
        assert_eq!("3 MTok".parse(), Ok(TokenCount(3_000_000)));
        assert!("3 seq".parse::<TokenCount>().is_err());
    }
}
