//! Owns filling Jinja templates with the fields of a record, inside bounds of work and size; never touches files.
//!
//! Task files of lm-evaluation-harness come from anywhere, so their templates run as chat templates do: without files,
//! network or clock, with a budget of instructions. Settings are those of the harness: an undefined name is an error,
//! and the last line feed is kept.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use crate::records::Record;

/// Most instructions of one rendering; a prompt of five options takes about a hundred.
const FUEL: u64 = 1_000_000;
/// Largest template and largest result, bytes.
const MAX_BYTES: usize = 1 << 20;
const NAME: &str = "template";

/// A template that cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Template or result is too long.
    #[error("the template or what it makes is longer than {MAX_BYTES} bytes; shorten it")]
    TooLarge,
    /// The template took too many steps.
    #[error("the template takes more than {FUEL} steps; check it for an endless loop")]
    Fuel,
    /// A fault in the template, or a field that is not there.
    #[error("the template fails in line {line}: {reason}")]
    Fault {
        /// Line of the template, from 1.
        line: usize,
        /// What the engine says.
        reason: String,
    },
}

/// A compiled template.
#[derive(Debug)]
pub struct RecordTemplate {
    environment: Environment<'static>,
    /// The expression, where the template is nothing but one in double braces.
    expression: Option<String>,
}

impl RecordTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// One that is too long or has a fault.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_BYTES {
            return Err(TemplateError::TooLarge);
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build().map_err(|error| explain(&error))?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| explain(&error))?;
        Ok(Self { environment, expression: lone_expression(source) })
    }

    /// The text that the template makes of a record.
    ///
    /// # Errors
    /// A field that is not there, a fault, a bound that is met.
    pub fn render(&self, record: &Record) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|error| explain(&error))?;
        let text = template.render(Serde(record)).map_err(|error| explain(&error))?;
        if text.len() > MAX_BYTES { Err(TemplateError::TooLarge) } else { Ok(text) }
    }

    /// The value of a template that is one expression (`{{[a, b]}}` is a list); the text of any other.
    ///
    /// # Errors
    /// As [`RecordTemplate::render`].
    pub fn value(&self, record: &Record) -> Result<Value, TemplateError> {
        let Some(expression) = &self.expression else { return Ok(self.render(record)?.into()) };
        let compiled =
            self.environment.compile_expression_owned(expression.clone()).map_err(|error| explain(&error))?;
        let value = compiled.eval(Serde(record)).map_err(|error| explain(&error))?;
        if value.is_undefined() {
            let reason = format!("`{}` is no field of the record", expression.trim());
            return Err(TemplateError::Fault { line: 1, reason });
        }
        serde_json::to_value(&value).map_err(|error| TemplateError::Fault { line: 1, reason: error.to_string() })
    }
}

fn lone_expression(source: &str) -> Option<String> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let is_alone = ["{{", "}}", "{%", "{#"].iter().all(|mark| !inner.contains(mark));
    is_alone.then(|| inner.trim_matches('-').to_owned())
}

fn explain(error: &Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::Fuel;
    }
    let reason = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TemplateError::Fault { line: error.line().unwrap_or(1), reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;

    fn record() -> Record {
        json!({"q": "wach?", "choices": ["la", "iyeh"], "label": 1}).as_object().unwrap().clone()
    }

    #[test]
    fn texts_lists_and_numbers_keep_their_kind() {
        let value = |source: &str| RecordTemplate::new(source).unwrap().value(&record()).unwrap();
        assert_eq!(value("Q: {{q}}\n"), json!("Q: wach?\n"));
        assert_eq!(value("{{choices}}"), json!(["la", "iyeh"]));
        assert_eq!(value("{{ [choices[1], q.strip('?')] }}"), json!(["iyeh", "wach"]));
        assert_eq!(value("{{label}}"), json!(1));
        let listed = "{% for c in choices %}{{ 'AB'[loop.index0] }}. {{c}}\n{% endfor %}";
        assert_eq!(value(listed), json!("A. la\nB. iyeh\n"));
    }

    #[test]
    fn absent_fields_faults_and_endless_loops_are_errors() {
        let fill = |source: &str| RecordTemplate::new(source).and_then(|t| t.value(&record())).unwrap_err().to_string();
        assert!(fill("{{ nothing }} here").contains("undefined"), "{}", fill("{{ nothing }} here"));
        assert!(fill("{{ nothing }}").contains("no field of the record"));
        assert!(fill("{% if %}").contains("line 1"));
        assert!(fill("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}").contains("steps"));
    }
}
