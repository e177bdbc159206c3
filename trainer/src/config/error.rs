//! Owns how a configuration mistake is told: the place, the cause, and what to write instead; never reads a file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest piece of the user's own text that an error message repeats, in characters.
const MAX_SHOWN_CHARS: usize = 60;

/// Where in the configuration something was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole: a key that is absent, or a rule that spans keys.
    #[default]
    File,
    /// A line and a column of the file, both counted from 1.
    Line {
        /// Line, from 1.
        line: u64,
        /// Column in characters, from 1.
        column: u64,
    },
    /// An override on the command line, without the `--set` itself: `learning_rate=1e-3`.
    Set(String),
}

/// What every [`ConfigError`] carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The configuration file; `None` for a configuration that was built in memory.
    pub file: Option<PathBuf>,
    /// The place in that file or on the command line.
    pub place: Place,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to write or do instead.
    pub hint: String,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, &self.file) {
            (Place::Set(text), _) => write!(f, "--set {}: ", shown(text))?,
            (Place::Line { line, column }, Some(file)) => write!(f, "{}:{line}:{column}: ", shown_path(file))?,
            (Place::Line { line, column }, None) => write!(f, "{line}:{column}: ")?,
            (Place::File, Some(file)) => write!(f, "{}: ", shown_path(file))?,
            (Place::File, None) => {}
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\nhint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// A configuration that cannot be used. `Display` renders `FILE:LINE:COLUMN: message`, then `hint: what to write`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read: absent, a directory, too large, not UTF-8, empty.
    #[error("{0}")]
    Unreadable(Box<Diagnosis>),
    /// The text is not the YAML that we accept.
    #[error("{0}")]
    Syntax(Box<Diagnosis>),
    /// A key that nothing reads.
    #[error("{0}")]
    UnknownKey(Box<Diagnosis>),
    /// A key that must be there and is not.
    #[error("{0}")]
    MissingKey(Box<Diagnosis>),
    /// A value of another kind than the key takes.
    #[error("{0}")]
    WrongType(Box<Diagnosis>),
    /// A value outside its range, or values that contradict each other, the data set or the device.
    #[error("{0}")]
    Invalid(Box<Diagnosis>),
}

impl ConfigError {
    /// File, place, message and hint.
    pub fn diagnosis(&self) -> &Diagnosis {
        match self {
            ConfigError::Unreadable(diagnosis)
            | ConfigError::Syntax(diagnosis)
            | ConfigError::UnknownKey(diagnosis)
            | ConfigError::MissingKey(diagnosis)
            | ConfigError::WrongType(diagnosis)
            | ConfigError::Invalid(diagnosis) => diagnosis,
        }
    }

    /// The file at fault, if the configuration came from one.
    pub fn file(&self) -> Option<&Path> {
        self.diagnosis().file.as_deref()
    }

    /// Line of the mistake, from 1, if it stands on one.
    pub fn line(&self) -> Option<u64> {
        match self.diagnosis().place {
            Place::Line { line, .. } => Some(line),
            Place::File | Place::Set(_) => None,
        }
    }

    /// Column of the mistake in characters, from 1, if it stands on a line.
    pub fn column(&self) -> Option<u64> {
        match self.diagnosis().place {
            Place::Line { column, .. } => Some(column),
            Place::File | Place::Set(_) => None,
        }
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.diagnosis().message
    }

    /// What to write or do instead.
    pub fn hint(&self) -> &str {
        &self.diagnosis().hint
    }
}

/// Something the reader of a configuration should know although nothing is wrong: an alias was understood, a value
/// was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// The place that the note is about.
    pub place: Place,
    /// The note itself.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hint = String::new();
        let bare = Diagnosis { file: self.file.clone(), place: self.place.clone(), message: self.text.clone(), hint };
        bare.fmt(f)
    }
}

/// Where each key of a parsed configuration was written, so that rules checked long after parsing still name a line.
/// Cheap to clone; the default is empty and yields errors without a place.
#[derive(Clone, Debug, Default)]
pub struct Places {
    file: Option<Arc<Path>>,
    by_path: Arc<BTreeMap<String, Place>>,
}

impl Places {
    /// The places of one file; keys are paths such as `model.hidden_size` or `datasets[0].path`.
    pub(crate) fn new(file: &Path, by_path: BTreeMap<String, Place>) -> Self {
        Places { file: Some(Arc::from(file)), by_path: Arc::new(by_path) }
    }

    /// The place of a key path, else of the nearest block around it, else the file as a whole.
    pub fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.by_path.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or(""),
                None => return Place::File,
            }
        }
    }

    /// A rule about the value at `path` is broken.
    pub fn invalid(&self, path: &str, message: impl Into<String>, hint: impl Into<String>) -> ConfigError {
        ConfigError::Invalid(self.diagnosis(self.place(path), message, hint))
    }

    /// A key that must be there is not.
    pub fn missing(&self, path: &str, message: impl Into<String>, hint: impl Into<String>) -> ConfigError {
        let parent = path.rfind('.').and_then(|dot| path.get(..dot)).map_or(Place::File, |parent| self.place(parent));
        ConfigError::MissingKey(self.diagnosis(parent, message, hint))
    }

    /// A problem that was found after parsing and begins with its key (`near.threshold: is 80; ...`), behind the place
    /// of that key.
    pub fn located(&self, problem: &str) -> String {
        let key = problem.split(": ").next().unwrap_or_default();
        let file = self.file.as_deref().map(shown_path).unwrap_or_default();
        match self.place(key) {
            Place::Line { line, column } => format!("{file}:{line}:{column}: {problem}"),
            Place::Set(text) => format!("--set {}: {problem}", shown(&text)),
            Place::File => format!("{file}: {problem}"),
        }
    }

    /// A note about the value at `path`.
    pub fn note(&self, path: &str, text: impl Into<String>) -> Note {
        Note { file: self.file.as_deref().map(Path::to_path_buf), place: self.place(path), text: text.into() }
    }

    fn diagnosis(&self, place: Place, message: impl Into<String>, hint: impl Into<String>) -> Box<Diagnosis> {
        let file = self.file.as_deref().map(Path::to_path_buf);
        Box::new(Diagnosis { file, place, message: message.into(), hint: hint.into() })
    }
}

/// The user's text as a message may repeat it: one line, shortened, control characters made visible so that a hostile
/// file cannot drive the terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MAX_SHOWN_CHARS {
            out.push('…');
            break;
        }
        // Bidirectional controls can reorder the rest of the line, so they are spelled out too.
        let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || reorders || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A path as a message may repeat it: whole, with control characters made visible.
pub(crate) fn shown_path(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn places() -> Places {
        let entries = [
            ("model", Place::Line { line: 3, column: 1 }),
            ("model.hidden_size", Place::Line { line: 4, column: 16 }),
            ("datasets[0].path", Place::Set("datasets.0.path=x".into())),
        ];
        Places::new(Path::new("configs/x.yaml"), entries.map(|(key, place)| (key.to_string(), place)).into())
    }

    #[test]
    fn a_rule_names_the_nearest_line() {
        let places = places();
        let at = |path: &str| places.invalid(path, "is wrong", "write 1").to_string();
        assert_eq!(at("model.hidden_size"), "configs/x.yaml:4:16: is wrong\nhint: write 1");
        assert_eq!(at("model.rope_scaling.factor"), "configs/x.yaml:3:1: is wrong\nhint: write 1");
        assert_eq!(at("seed"), "configs/x.yaml: is wrong\nhint: write 1");
        assert_eq!(at("datasets[0].path"), "--set datasets.0.path=x: is wrong\nhint: write 1");
        assert_eq!(Places::default().invalid("seed", "is wrong", "").to_string(), "is wrong");
        let located = places.located("model.hidden_size: is 0; write 1");
        assert_eq!(located, "configs/x.yaml:4:16: model.hidden_size: is 0; write 1");
        assert_eq!(places.located("seed: is 0; write 1"), "configs/x.yaml: seed: is 0; write 1");
    }

    #[test]
    fn hostile_text_cannot_reach_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(shown("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(shown(&"ⴰ".repeat(100)).chars().count(), MAX_SHOWN_CHARS + 1);
        assert_eq!(shown("مرحبا"), "مرحبا");
    }
}
