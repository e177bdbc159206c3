//! Owns how a configuration file spells [`Normalize`]: a name, or a block with a profile and its options.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Normalize, Profile};

impl Serialize for Normalize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Normalize::Nfc => serializer.serialize_str("nfc"),
            Normalize::None => serializer.serialize_str("none"),
            // Always the version, also where the configuration wrote the short name.
            Normalize::Profile(profile) => profile.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Normalize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Choice)
    }
}

struct Choice;

impl<'de> Visitor<'de> for Choice {
    type Value = Normalize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`nfc`, `none`, `moroccan-v1` or a block such as `{profile: moroccan-v1, harakat: drop}`")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Normalize, E> {
        match name {
            "nfc" => Ok(Normalize::Nfc),
            "none" => Ok(Normalize::None),
            "moroccan" | "moroccan-v1" => Ok(Normalize::Profile(Profile::default())),
            other => Err(E::unknown_variant(other, &["nfc", "none", "moroccan-v1"])),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Normalize, A::Error> {
        Profile::deserialize(MapAccessDeserializer::new(map)).map(Normalize::Profile)
    }
}

impl JsonSchema for Normalize {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Normalize")
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let profile = generator.subschema_for::<Profile>();
        json_schema!({
            "description": "How texts are normalised before anything else sees them.",
            "anyOf": [
                {"type": "string", "const": "nfc",
                 "description": "Unicode NFC, CRLF and CR to LF, no NUL, no leading byte order mark."},
                {"type": "string", "const": "none", "description": "The text exactly as the file holds it."},
                {"type": "string", "enum": ["moroccan", "moroccan-v1"],
                 "description": "The profile for the scripts of Morocco, version 1, which includes NFC."},
                profile
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::{Harakat, ProfileName};
    use super::*;

    fn read(json: &str) -> Result<Normalize, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_blocks_are_read() {
        assert_eq!(read("\"nfc\""), Ok(Normalize::Nfc));
        assert_eq!(read("\"none\""), Ok(Normalize::None));
        let profile = Profile { profile: ProfileName::MoroccanV1, harakat: Harakat::Keep };
        assert_eq!(read("\"moroccan\""), Ok(Normalize::Profile(profile)));
        assert_eq!(read("{\"profile\": \"moroccan\"}"), Ok(Normalize::Profile(profile)));
        let dropped = Profile { harakat: Harakat::Drop, ..profile };
        assert_eq!(read("{\"profile\": \"moroccan-v1\", \"harakat\": \"drop\"}"), Ok(Normalize::Profile(dropped)));
    }

    #[test]
    fn wrong_choices_are_named() {
        assert!(read("\"nfkc\"").unwrap_err().contains("`nfc`, `none`"));
        assert!(read("{\"profil\": \"moroccan\"}").unwrap_err().contains("profil"));
        assert!(read("3").unwrap_err().contains("moroccan-v1"));
    }

    #[test]
    fn the_old_names_keep_their_json_and_a_profile_states_its_version() {
        assert_eq!(serde_json::to_string(&Normalize::Nfc).unwrap(), "\"nfc\"");
        assert_eq!(serde_json::to_string(&Normalize::None).unwrap(), "\"none\"");
        let short = read("\"moroccan\"").unwrap();
        assert_eq!(serde_json::to_string(&short).unwrap(), "{\"profile\":\"moroccan-v1\"}");
        assert_eq!(read(&serde_json::to_string(&short).unwrap()), Ok(short));
    }
}
