//! Owns the bytes of a trained model: writing, and reading with every length checked; never trains.
//!
//! Layout: `JZLID` and a version byte, BLAKE3 of the payload (32 bytes), zstd of the payload. Payload, little-endian: a
//! JSON header and the marker lists, each as u32 length and UTF-8; for each script of the header a u32 number of rows,
//! the hash values as variable-length differences, then the weights label by label.

use serde::{Deserialize, Serialize};

use super::lexicon::{Lexicon, MAX_GROUPS};
use super::model::{GROUP_FEATURES, HASH_BITS, Logits, MAX_LABELS, Model};
use super::script::Script;

/// First bytes of a model file.
pub const MAGIC: &[u8; 6] = b"JZLID\x01";
const DIGEST_BYTES: usize = 32;
/// Largest payload that is read.
const MAX_PAYLOAD_BYTES: usize = 64 << 20;
const COMPRESSION_LEVEL: i32 = 19;

/// What a model says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Provenance {
    /// Sources of the training texts with their number of sentences: label, source, sentences.
    pub sources: Vec<(String, String, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    provenance: Provenance,
    scripts: Vec<ScriptHeader>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ScriptHeader {
    script: String,
    labels: Vec<String>,
    scale: f32,
    sharpness: [f32; 3],
    bias: Vec<f32>,
    markers: Vec<Vec<f32>>,
}

/// The bytes of a model file.
pub fn write(lexicon: &str, models: &[(Script, Model)], provenance: &Provenance) -> std::io::Result<Vec<u8>> {
    let scripts = models.iter().map(|(script, model)| header_of(*script, model)).collect();
    let header = serde_json::to_vec(&Header { provenance: provenance.clone(), scripts })?;
    let mut payload = Vec::new();
    for part in [header.as_slice(), lexicon.as_bytes()] {
        payload.extend_from_slice(&(part.len() as u32).to_le_bytes());
        payload.extend_from_slice(part);
    }
    for (_, model) in models {
        let known = model.known();
        payload.extend_from_slice(&(known.len() as u32).to_le_bytes());
        let mut before = 0;
        for value in known {
            push_variable(&mut payload, value - before);
            before = value;
        }
        for label in 0..model.labels.len() {
            payload.extend(model.rows().iter().filter_map(|row| row.get(label)).map(|w| *w as u8));
        }
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(blake3::hash(&payload).as_bytes());
    bytes.extend(zstd::bulk::compress(&payload, COMPRESSION_LEVEL)?);
    Ok(bytes)
}

fn header_of(script: Script, model: &Model) -> ScriptHeader {
    let cut = |row: &Logits| row.iter().take(model.labels.len()).copied().collect::<Vec<f32>>();
    ScriptHeader {
        script: script.code().to_owned(),
        labels: model.labels.clone(),
        scale: model.scale,
        sharpness: model.sharpness,
        bias: cut(&model.bias),
        markers: model.markers.iter().map(cut).collect(),
    }
}

fn push_variable(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What a model file holds.
#[derive(Debug)]
pub struct Loaded {
    /// The marker lists.
    pub lexicon: Lexicon,
    /// One model a script.
    pub models: Vec<(Script, Model)>,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// A fault of the bytes: offset and what is wrong.
pub type Fault = (u64, String);

/// Reads what [`write`] wrote; `None` when the bytes are no model of ours.
pub fn read(bytes: &[u8]) -> Option<Result<Loaded, Fault>> {
    let rest = bytes.strip_prefix(MAGIC.as_slice())?;
    Some(read_body(rest))
}

fn read_body(rest: &[u8]) -> Result<Loaded, Fault> {
    let at = MAGIC.len() as u64;
    let (digest, packed) = rest.split_at_checked(DIGEST_BYTES).ok_or((at, "cut short".to_owned()))?;
    let at = at + DIGEST_BYTES as u64;
    let payload = zstd::bulk::decompress(packed, MAX_PAYLOAD_BYTES).map_err(|e| (at, e.to_string()))?;
    if blake3::hash(&payload).as_bytes() != digest {
        return Err((at, "the checksum differs".into()));
    }
    let mut cursor = Cursor { payload: &payload, at: 0 };
    let header: Header = serde_json::from_slice(cursor.part()?).map_err(|e| cursor.fault(&e.to_string()))?;
    let lists = std::str::from_utf8(cursor.part()?).map_err(|e| cursor.fault(&e.to_string()))?;
    let lexicon = Lexicon::parse(lists);
    let mut models = Vec::new();
    for script_header in &header.scripts {
        let script = Script::from_code(&script_header.script)
            .ok_or_else(|| cursor.fault(&format!("unknown script `{}`", script_header.script)))?;
        if models.iter().any(|(other, _)| *other == script) {
            return Err(cursor.fault("two models of one script"));
        }
        models.push((script, cursor.model(script_header)?));
    }
    if cursor.at != payload.len() {
        return Err(cursor.fault("bytes after the end"));
    }
    Ok(Loaded { lexicon, models, provenance: header.provenance })
}

struct Cursor<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn fault(&self, what: &str) -> Fault {
        (self.at as u64, what.to_owned())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.payload.len());
        let found = end.and_then(|end| self.payload.get(self.at..end)).ok_or_else(|| self.fault("cut short"))?;
        self.at += count;
        Ok(found)
    }

    fn u32(&mut self) -> Result<usize, Fault> {
        let bytes = self.take(4)?.try_into().map_err(|_| self.fault("cut short"))?;
        Ok(u32::from_le_bytes(bytes) as usize)
    }

    fn part(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u32()?;
        self.take(len)
    }

    fn variable(&mut self) -> Result<u32, Fault> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21] {
            let byte = self.take(1)?.first().copied().unwrap_or(0);
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.fault("a number of more than 28 bits"))
    }

    fn model(&mut self, header: &ScriptHeader) -> Result<Model, Fault> {
        let labels = header.labels.len();
        if labels == 0 || labels > MAX_LABELS {
            return Err(self.fault(&format!("{labels} labels; 1 to {MAX_LABELS} are allowed")));
        }
        if header.markers.len() > MAX_GROUPS * GROUP_FEATURES {
            return Err(self.fault("too many marker groups"));
        }
        let count = self.u32()?;
        if count > 1 << HASH_BITS {
            return Err(self.fault(&format!("{count} rows; at most {} are possible", 1 << HASH_BITS)));
        }
        let mut known = Vec::with_capacity(count);
        let mut value = 0u32;
        for row in 0..count {
            let step = self.variable()?;
            value = value.saturating_add(step);
            if value >> HASH_BITS != 0 || (row > 0 && step == 0) {
                return Err(self.fault("the hash values do not rise"));
            }
            known.push(value);
        }
        let mut rows = vec![[0i8; MAX_LABELS]; count];
        for label in 0..labels {
            for (row, weight) in rows.iter_mut().zip(self.take(count)?) {
                if let Some(slot) = row.get_mut(label) {
                    *slot = *weight as i8;
                }
            }
        }
        let finite = |values: &[f32]| -> Option<Logits> {
            let mut logits = [0.0; MAX_LABELS];
            logits.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
            (values.len() == labels && logits.iter().all(|v| v.is_finite())).then_some(logits)
        };
        let mut model = Model::new(header.labels.clone(), &known, rows);
        let markers: Option<Vec<Logits>> = header.markers.iter().map(|row| finite(row)).collect();
        (model.bias, model.markers) =
            finite(&header.bias).zip(markers).ok_or_else(|| self.fault("weights of a wrong number or not finite"))?;
        let numbers = [header.scale, header.sharpness[0], header.sharpness[1], header.sharpness[2]];
        if numbers.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            return Err(self.fault("a scale that is not positive"));
        }
        (model.scale, model.sharpness) = (header.scale, header.sharpness);
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let mut model = Model::new(vec!["a_Latn".into(), "b_Latn".into()], &[3, 700, 99_999], vec![[1; MAX_LABELS]; 3]);
        model.markers = vec![[0.5; MAX_LABELS]; GROUP_FEATURES];
        model
    }

    #[test]
    fn what_is_written_is_read_and_every_cut_or_flip_is_seen() {
        let provenance = Provenance { sources: vec![("a_Latn".into(), "s".into(), 7)] };
        let bytes = write("[Latn a]\nword\n", &[(Script::Latn, model())], &provenance).unwrap();
        let loaded = read(&bytes).unwrap().unwrap();
        assert_eq!(loaded.provenance, provenance);
        assert_eq!(loaded.models[0].1.known(), [3, 700, 99_999]);
        assert_eq!(loaded.models[0].1.rows().len(), 3);
        for at in MAGIC.len()..bytes.len() {
            assert!(read(&bytes[..at]).unwrap().is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            // Some bits of a zstd frame mean nothing; then the model is the same.
            if let Ok(same) = read(&flipped).unwrap() {
                assert_eq!(same.models[0].1.rows(), loaded.models[0].1.rows(), "flipped at {at}");
            }
        }
        assert!(read(b"something else").is_none());
    }
}
