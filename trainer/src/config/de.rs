//! Owns reading a configuration tree into a Rust type, and saying which key at which place did not fit; never reads
//! text.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::error::Place;
use super::tree::{Entry, Node, Value};

/// Largest whole number that a float in the tree (`1e9`) may stand for without doubt about its digits.
const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// What did not fit, where, and under which key path (outermost key first).
#[derive(Debug)]
pub(crate) struct Misfit {
    pub kind: MisfitKind,
    pub place: Option<Place>,
    pub path: Vec<Step>,
}

/// One step of a key path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

#[derive(Debug)]
pub(crate) enum MisfitKind {
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    UnknownVariant {
        value: String,
        known: &'static [&'static str],
    },
    MissingKey {
        key: &'static str,
    },
    WrongType {
        expected: String,
        found: String,
    },
    /// A type of our own refused the text; its message may hold a hint after `\nhint: `.
    Refused {
        message: String,
    },
}

impl Misfit {
    fn wrong(expected: impl Into<String>, node: &Node) -> Self {
        let kind = MisfitKind::WrongType { expected: expected.into(), found: node.found() };
        Misfit { kind, place: Some(node.place.clone()), path: Vec::new() }
    }

    fn kind(kind: MisfitKind) -> Self {
        Misfit { kind, place: None, path: Vec::new() }
    }

    fn inside(mut self, step: Step, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self.path.insert(0, step);
        self
    }

    /// The key path as users write it: `datasets[0].path`.
    pub fn path_text(&self) -> String {
        path_text(&self.path)
    }
}

/// `datasets[0].path` from its steps.
pub(crate) fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at `{}`", self.kind, self.path_text())
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Misfit::kind(MisfitKind::Refused { message: message.to_string() })
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let kind = MisfitKind::WrongType { expected: expected.to_string(), found: unexpected.to_string() };
        Misfit::kind(kind)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn invalid_length(len: usize, expected: &dyn Expected) -> Self {
        let expected = expected.to_string().replace("an array of length", "a list of length");
        Misfit::kind(MisfitKind::WrongType { expected, found: format!("a list of length {len}") })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Misfit::kind(MisfitKind::UnknownVariant { value: variant.to_string(), known: expected })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Misfit::kind(MisfitKind::UnknownKey { key: field.to_string(), known: expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Misfit::kind(MisfitKind::MissingKey { key: field })
    }
}

/// Reads `T` from a tree.
///
/// # Errors
/// The first key or value that `T` does not take.
pub(crate) fn from_node<T: de::DeserializeOwned>(node: &Node) -> Result<T, Misfit> {
    T::deserialize(NodeReader { node }).map_err(|mut misfit| {
        misfit.place.get_or_insert_with(|| node.place.clone());
        misfit
    })
}

#[derive(Clone, Copy)]
struct NodeReader<'a> {
    node: &'a Node,
}

impl NodeReader<'_> {
    /// The whole number that stands here; `1e9` counts, `0.5` and text do not.
    fn whole(&self, min: i128, max: i128) -> Result<i128, Misfit> {
        let number = match self.node.value {
            Value::Int(number) => Some(number),
            Value::Float(number) if number.fract() == 0.0 && number.abs() <= MAX_EXACT_FLOAT => Some(number as i128),
            _ => None,
        };
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| {
            let expected = match (min, max) {
                (0, max) if max >= i128::from(u32::MAX) => "a whole number, 0 or more".to_string(),
                (min, max) if min < 0 && max >= i128::from(i32::MAX) => "a whole number".to_string(),
                (min, max) => format!("a whole number from {min} to {max}"),
            };
            Misfit::wrong(expected, self.node)
        })
    }

    fn number(&self) -> Result<f64, Misfit> {
        match self.node.value {
            Value::Int(number) => Ok(number as f64),
            Value::Float(number) => Ok(number),
            _ => Err(Misfit::wrong("a number", self.node)),
        }
    }

    fn text(&self) -> Result<&str, Misfit> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                Err(Misfit::wrong("text (put it in quotes)", self.node))
            }
            _ => Err(Misfit::wrong("text", self.node)),
        }
    }

    fn list(&self, expected: &str) -> Result<ListReader<'_>, Misfit> {
        match &self.node.value {
            Value::List(items) => Ok(ListReader { items: items.iter().enumerate() }),
            _ => Err(Misfit::wrong(expected, self.node)),
        }
    }

    fn map(&self) -> Result<MapReader<'_>, Misfit> {
        match &self.node.value {
            Value::Map(entries) => Ok(MapReader { entries: entries.iter(), pending: None }),
            _ => Err(Misfit::wrong("a block of `key: value` lines", self.node)),
        }
    }

    /// Runs a visitor whose own type errors speak of Rust; the found value is told in YAML's words instead.
    fn translated<T>(&self, outcome: Result<T, Misfit>) -> Result<T, Misfit> {
        outcome.map_err(|mut misfit| {
            if misfit.place.is_none() {
                misfit.place = Some(self.node.place.clone());
                if let MisfitKind::WrongType { found, .. } = &mut misfit.kind
                    && !found.starts_with("a list of length")
                {
                    *found = self.node.found();
                }
            }
            misfit
        })
    }
}

macro_rules! whole_numbers {
    ($($method:ident, $visit:ident, $type:ty;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            let number = self.whole(<$type>::MIN.into(), <$type>::MAX.into())?;
            // In range by the check above, so the cast keeps the value.
            self.translated(visitor.$visit(number as $type))
        })*
    };
}

impl<'de> Deserializer<'de> for NodeReader<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let outcome = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_f64(*value as f64),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(_) => visitor.visit_seq(self.list("a list")?),
            Value::Map(_) => visitor.visit_map(self.map()?),
        };
        self.translated(outcome)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(Misfit::wrong("`true` or `false`", self.node)),
        }
    }

    whole_numbers! {
        deserialize_i8, visit_i8, i8;
        deserialize_i16, visit_i16, i16;
        deserialize_i32, visit_i32, i32;
        deserialize_i64, visit_i64, i64;
        deserialize_u8, visit_u8, u8;
        deserialize_u16, visit_u16, u16;
        deserialize_u32, visit_u32, u32;
        deserialize_u64, visit_u64, u64;
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let number = self.number()?;
        self.translated(visitor.visit_f64(number))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let number = self.number()?;
        self.translated(visitor.visit_f64(number))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.translated(visitor.visit_str(self.text()?))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.translated(visitor.visit_str(self.text()?))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.translated(visitor.visit_str(self.text()?))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.translated(visitor.visit_str(self.text()?))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        // An empty value is a line that someone meant to finish; leaving a key out is what asks for the default.
        match self.node.value {
            Value::Null => Err(Misfit::wrong("a value", self.node)),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let list = self.list("a list")?;
        self.translated(visitor.visit_seq(list))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Misfit> {
        let expected = format!("a list of length {len}");
        let list = self.list(&expected)?;
        let found = list.items.len();
        let outcome = if found == len {
            visitor.visit_seq(list)
        } else {
            Err(de::Error::invalid_length(found, &expected.as_str()))
        };
        self.translated(outcome)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let map = self.map()?;
        self.translated(visitor.visit_map(map))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let choice = match &self.node.value {
            Value::Text(text) => Choice { name: text, place: &self.node.place, content: None },
            Value::Map(entries) if let [entry] = entries.as_slice() => {
                Choice { name: &entry.key, place: &entry.key_place, content: Some(&entry.node) }
            }
            _ => return Err(Misfit::wrong(format!("one of {}", quoted_list(variants)), self.node)),
        };
        self.translated(visitor.visit_enum(choice))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { i128 u128 bytes byte_buf unit unit_struct }
}

/// `` `a`, `b` or `c` ``.
pub(crate) fn quoted_list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

struct ListReader<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for ListReader<'_> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let outcome = seed.deserialize(NodeReader { node });
        outcome.map(Some).map_err(|misfit| misfit.inside(Step::Index(index), &node.place))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct MapReader<'a> {
    entries: std::slice::Iter<'a, Entry>,
    pending: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for MapReader<'_> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.pending = Some(entry);
        let key: StrDeserializer<'_, Misfit> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mut misfit| {
            misfit.place.get_or_insert_with(|| entry.key_place.clone());
            // A table whose keys are the names of a closed list: to its writer they are keys.
            if let MisfitKind::UnknownVariant { value, known } = misfit.kind {
                misfit.kind = MisfitKind::UnknownKey { key: value, known };
            }
            misfit
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some(entry) = self.pending.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let outcome = seed.deserialize(NodeReader { node: &entry.node });
        outcome.map_err(|misfit| misfit.inside(Step::Key(entry.key.clone()), &entry.node.place))
    }
}

/// An enum value: `name`, or `name: content`.
struct Choice<'a> {
    name: &'a str,
    place: &'a Place,
    content: Option<&'a Node>,
}

impl<'de, 'a> EnumAccess<'de> for Choice<'a> {
    type Error = Misfit;
    type Variant = Content<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'a>), Misfit> {
        let name: StrDeserializer<'_, Misfit> = self.name.into_deserializer();
        let variant = seed.deserialize(name).map_err(|mut misfit| {
            misfit.place.get_or_insert_with(|| self.place.clone());
            misfit
        })?;
        Ok((variant, Content { name: self.name, node: self.content }))
    }
}

struct Content<'a> {
    name: &'a str,
    node: Option<&'a Node>,
}

impl<'a> Content<'a> {
    fn reader(&self) -> Result<NodeReader<'a>, Misfit> {
        let missing = || -> Misfit { de::Error::custom(format!("`{}` needs a block of settings after it", self.name)) };
        self.node.map(|node| NodeReader { node }).ok_or_else(missing)
    }

    fn inside<T>(&self, outcome: Result<T, Misfit>) -> Result<T, Misfit> {
        outcome.map_err(|misfit| match self.node {
            Some(node) => misfit.inside(Step::Key(self.name.to_string()), &node.place),
            None => misfit,
        })
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        match self.node {
            None => Ok(()),
            Some(node) => Err(Misfit::wrong(format!("`{}` alone", self.name), node)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misfit> {
        let outcome = seed.deserialize(self.reader()?);
        self.inside(outcome)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Misfit> {
        let outcome = self.reader()?.deserialize_tuple(len, visitor);
        self.inside(outcome)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Misfit> {
        let outcome = self.reader()?.deserialize_map(visitor);
        self.inside(outcome)
    }
}
