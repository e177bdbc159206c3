//! Owns the words with which a user names hardware (`device:` in a config); never touches the hardware.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a config or `--set device=...` asks for: `auto`, `cpu`, `cuda:N`, `rocm:N` or `wgpu:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The best device that is compiled in and answers: CUDA, then ROCm, then wgpu (no software adapter), else the CPU.
    #[default]
    Auto,
    /// The processor, through burn's Flex backend and our own kernels.
    Cpu,
    /// The N-th NVIDIA GPU the driver shows (`CUDA_VISIBLE_DEVICES` renumbers them).
    Cuda(usize),
    /// The N-th AMD GPU.
    Rocm(usize),
    /// The N-th graphics adapter: discrete GPUs first, then integrated, virtual, other and software ones.
    Wgpu(usize),
}

impl DeviceChoice {
    /// The choice of the `local_rank`-th process of a host, where this is the first one's.
    #[must_use]
    pub fn of_process(self, local_rank: usize) -> Self {
        match self {
            Self::Auto | Self::Cpu => self,
            Self::Cuda(index) => Self::Cuda(index.saturating_add(local_rank)),
            Self::Rocm(index) => Self::Rocm(index.saturating_add(local_rank)),
            Self::Wgpu(index) => Self::Wgpu(index.saturating_add(local_rank)),
        }
    }

    /// Number of the GPU; `None` where no GPU of a number is meant.
    pub fn index(self) -> Option<usize> {
        match self {
            Self::Auto | Self::Cpu => None,
            Self::Cuda(index) | Self::Rocm(index) | Self::Wgpu(index) => Some(index),
        }
    }

    /// Name of the cargo feature a binary needs for this choice; `None` when every binary has it.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Self::Auto | Self::Cpu => None,
            Self::Cuda(_) => Some("cuda"),
            Self::Rocm(_) => Some("rocm"),
            Self::Wgpu(_) => Some("wgpu"),
        }
    }

    /// Whether this binary was built with what the choice needs.
    pub fn is_built(self) -> bool {
        match self {
            Self::Auto | Self::Cpu => true,
            Self::Cuda(_) => cfg!(feature = "cuda"),
            Self::Rocm(_) => cfg!(feature = "rocm"),
            Self::Wgpu(_) => cfg!(feature = "wgpu"),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Rocm(index) => write!(f, "rocm:{index}"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
        }
    }
}

/// Why a text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceChoiceError {
    /// The part before the colon is no backend.
    #[error("`{text}` is not a device; write `auto`, `cpu`, `cuda:N`, `rocm:N` or `wgpu:N`{hint}")]
    Unknown {
        /// What was written.
        text: String,
        /// The nearest thing that would have been right, as ` (did you mean ...?)`, or nothing.
        hint: String,
    },
    /// The part after the colon is no device number.
    #[error(
        "`{text}`: `{index}` is not a device number (0 to {LAST_INDEX}); \
         the first GPU is `{backend}:0`"
    )]
    Index {
        /// What was written.
        text: String,
        /// The backend before the colon.
        backend: String,
        /// What stands after the colon.
        index: String,
    },
    /// A number on a device that has none.
    #[error(
        "`{text}`: `{backend}` takes no number; write `{backend}` (the config key `threads` sets the CPU's threads)"
    )]
    Numbered {
        /// What was written.
        text: String,
        /// The backend before the colon.
        backend: String,
    },
}

/// Largest device number accepted: CubeCL keeps device numbers in 16 bits, and no host has this many.
pub const LAST_INDEX: usize = 1023;

/// Names other tools use, and what they are called here.
const ALIASES: [(&str, &str); 8] = [
    ("gpu", "auto"),
    ("nvidia", "cuda:0"),
    ("amd", "rocm:0"),
    ("hip", "rocm:0"),
    ("vulkan", "wgpu:0"),
    ("webgpu", "wgpu:0"),
    ("metal", "wgpu:0"),
    ("mps", "wgpu:0"),
];

impl FromStr for DeviceChoice {
    type Err = DeviceChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        let (backend, index) = match trimmed.split_once(':') {
            Some((backend, index)) => (backend, Some(index)),
            None => (trimmed, None),
        };
        let numbered = |make: fn(usize) -> Self| match index {
            None => Ok(make(0)),
            Some(digits) => match digits.parse::<usize>() {
                Ok(n) if n <= LAST_INDEX && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(make(n)),
                _ => Err(DeviceChoiceError::Index {
                    text: text.to_owned(),
                    backend: backend.to_owned(),
                    index: digits.to_owned(),
                }),
            },
        };
        let plain = |choice: Self| match index {
            None => Ok(choice),
            Some(_) => Err(DeviceChoiceError::Numbered { text: text.to_owned(), backend: backend.to_owned() }),
        };
        match backend {
            "auto" => plain(Self::Auto),
            "cpu" => plain(Self::Cpu),
            "cuda" => numbered(Self::Cuda),
            "rocm" => numbered(Self::Rocm),
            "wgpu" => numbered(Self::Wgpu),
            _ => Err(DeviceChoiceError::Unknown { text: text.to_owned(), hint: hint(trimmed) }),
        }
    }
}

/// ` (did you mean ...?)` for a text that is close to a device.
fn hint(text: &str) -> String {
    let lower = text.to_lowercase();
    let name: String = lower.chars().take_while(char::is_ascii_alphabetic).collect();
    let number: String = lower.chars().filter(char::is_ascii_digit).collect();
    let backend = ["auto", "cpu", "cuda", "rocm", "wgpu"]
        .into_iter()
        .find(|&known| !name.is_empty() && strsim::damerau_levenshtein(known, &name) <= 1);
    let suggestion = match (ALIASES.iter().find(|(alias, _)| *alias == name), backend) {
        (Some((_, meant)), _) => (*meant).to_owned(),
        (None, Some(backend @ ("auto" | "cpu"))) => backend.to_owned(),
        (None, Some(backend)) if number.is_empty() => format!("{backend}:0"),
        (None, Some(backend)) => format!("{backend}:{number}"),
        (None, None) => return String::new(),
    };
    format!(" (did you mean `{suggestion}`?)")
}

impl TryFrom<String> for DeviceChoice {
    type Error = DeviceChoiceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl JsonSchema for DeviceChoice {
    fn schema_name() -> Cow<'static, str> {
        "DeviceChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Where to compute: auto, cpu, cuda:N, rocm:N or wgpu:N.",
            "pattern": "^(auto|cpu|(cuda|rocm|wgpu)(:[0-9]{1,4})?)$",
            "default": "auto"
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn processes_of_a_host_take_devices_in_turn() {
        assert_eq!(DeviceChoice::Cuda(2).of_process(3), DeviceChoice::Cuda(5));
        assert_eq!(DeviceChoice::Wgpu(0).of_process(1), DeviceChoice::Wgpu(1));
        assert_eq!(DeviceChoice::Rocm(0).of_process(0), DeviceChoice::Rocm(0));
        assert_eq!(DeviceChoice::Cpu.of_process(1), DeviceChoice::Cpu);
    }

    #[test]
    fn every_choice_survives_writing_and_reading() {
        use DeviceChoice::{Auto, Cpu, Cuda, Rocm, Wgpu};
        for choice in [Auto, Cpu, Cuda(0), Cuda(7), Rocm(1), Wgpu(3), Cuda(LAST_INDEX)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(serde_json::from_str::<DeviceChoice>(&json).unwrap(), choice);
        }
        assert_eq!("cuda".parse(), Ok(Cuda(0)));
        assert_eq!(" cpu ".parse(), Ok(Cpu));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        for (text, expected) in [
            ("gpu", "did you mean `auto`"),
            ("CUDA:1", "did you mean `cuda:1`"),
            ("cuda1", "did you mean `cuda:1`"),
            ("cdua:2", "did you mean `cuda:2`"),
            ("mps", "did you mean `wgpu:0`"),
            ("CPU", "did you mean `cpu`"),
            ("cuda:", "`` is not a device number"),
            ("cuda:x", "the first GPU is `cuda:0`"),
            ("cuda:-1", "`-1` is not a device number"),
            ("cuda:+1", "`+1` is not a device number"),
            ("wgpu:1024", "(0 to 1023)"),
            ("wgpu:99999999999999999999", "is not a device number"),
            ("cuda:0:1", "`0:1` is not a device number"),
            ("cpu:0", "`cpu` takes no number"),
            ("auto:1", "`auto` takes no number"),
        ] {
            let message = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(message.contains(text), "{text}: {message}");
        }
        let message = "abacus".parse::<DeviceChoice>().unwrap_err().to_string();
        assert_eq!(message, "`abacus` is not a device; write `auto`, `cpu`, `cuda:N`, `rocm:N` or `wgpu:N`");
        assert!("".parse::<DeviceChoice>().is_err());
    }

    #[test]
    fn a_config_error_carries_the_message() {
        let error = serde_json::from_str::<DeviceChoice>("\"gpu0\"").unwrap_err().to_string();
        assert!(error.contains("write `auto`, `cpu`"), "{error}");
    }
}
