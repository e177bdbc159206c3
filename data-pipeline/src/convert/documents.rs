//! Owns documents as lines: JSON with text and labels, the layout of dolma, plain text; never reads shards.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::{ConvertError, Job, Target, TextRow, file_name};
use crate::dataset::DataError;
use crate::shard::sync_folder;

/// Zstandard level of `.zst` files.
const ZSTD_LEVEL: i32 = 9;

/// A document under the names that `data prepare` reads by default.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    text: &'a str,
    lang: &'a str,
    source: &'a str,
    licence: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    split: &'a str,
    bytes: u64,
    tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<f64>,
}

/// A document in the layout of dolma (`docs/data-format.md` there): labels of its own are under `metadata`.
#[derive(Serialize)]
struct DolmaLine<'a> {
    id: &'a str,
    text: &'a str,
    source: &'a str,
    metadata: DolmaLabels<'a>,
}

#[derive(Serialize)]
struct DolmaLabels<'a> {
    lang: &'a str,
    licence: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    split: &'a str,
    bytes: u64,
    tokens: u64,
}

/// Writes one document.
pub(super) fn write(target: Target, row: &TextRow, sink: &mut dyn Write) -> io::Result<()> {
    let TextRow { facts, split, text } = row;
    let (url, split) = (facts.url.as_deref(), split.name());
    match target {
        Target::Text => {
            sink.write_all(text.as_bytes())?;
            sink.write_all(if text.ends_with('\n') { b"\n" } else { b"\n\n" })
        }
        Target::Dolma => {
            let metadata = DolmaLabels {
                lang: &facts.lang,
                licence: &facts.licence,
                url,
                split,
                bytes: facts.text_bytes,
                tokens: facts.tokens,
            };
            json_line(&DolmaLine { id: &facts.id, text, source: &facts.source, metadata }, sink)
        }
        _ => json_line(
            &Line {
                id: &facts.id,
                text,
                lang: &facts.lang,
                source: &facts.source,
                licence: &facts.licence,
                url,
                split,
                bytes: facts.text_bytes,
                tokens: facts.tokens,
                quality: facts.quality,
            },
            sink,
        ),
    }
}

fn json_line(value: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    // One write a line: sinks may be unbuffered.
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    sink.write_all(&line)
}

/// A file that may be compressed.
enum Sink {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Sink {
    fn create(path: &Path, named: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
        Ok(match named.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gzip(GzEncoder::new(file, Compression::default())),
            Some("zst") => Self::Zstd(zstd::Encoder::new(file, ZSTD_LEVEL)?),
            _ => Self::Plain(file),
        })
    }

    fn as_write(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(sink) => sink,
            Self::Gzip(sink) => sink,
            Self::Zstd(sink) => sink,
        }
    }

    fn finish(self) -> io::Result<()> {
        let file = match self {
            Self::Plain(sink) => sink,
            Self::Gzip(sink) => sink.finish()?,
            Self::Zstd(sink) => sink.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// Writes all documents into one file, compressed as the name that it shall have says.
pub(super) fn file(job: &mut Job<'_>, target: Target, out: &Path, path: &Path) -> Result<(), ConvertError> {
    let failed = || DataError::io(out, "written");
    let mut sink = Sink::create(path, out).map_err(DataError::io(out, "created"))?;
    job.texts(&mut |rows| {
        let file = sink.as_write();
        rows.iter().try_for_each(|row| write(target, row, &mut *file)).map_err(failed())
    })?;
    sink.finish().map_err(failed())?;
    job.done.files = 1;
    Ok(())
}

/// Writes a folder of documents in the layout of dolma.
pub(super) fn dolma(job: &mut Job<'_>, folder: &Path) -> Result<(), ConvertError> {
    let documents = folder.join("documents");
    let mut taken = BTreeSet::new();
    for component in job.components.clone() {
        let below = documents.join(file_name(component.source()));
        std::fs::create_dir_all(&below).map_err(DataError::io(&below, "created"))?;
        let stem = format!("{}-{}", component.lang(), component.split().name());
        // Two sources may have one name once it is made safe.
        let names = (0..).map(|number| below.join(format!("{stem}-{number:04}.jsonl.gz")));
        let Some(path) = names.into_iter().find(|path| taken.insert(path.clone())) else { continue };
        let failed = || DataError::io(&path, "written");
        let mut sink = Sink::create(&path, &path).map_err(failed())?;
        job.texts_of(component, &mut |rows| {
            let file = sink.as_write();
            rows.iter().try_for_each(|row| write(Target::Dolma, row, &mut *file)).map_err(failed())
        })?;
        sink.finish().map_err(failed())?;
        sync_folder(&below)?;
        job.done.files += 1;
    }
    Ok(sync_folder(&documents)?)
}
