//! Owns how the input files are divided into parts, and what is gathered from them beside documents; never reads an
//! input.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::PrepareError;
use crate::pii::AuditSample;
use crate::source::discover::InputFile;
use crate::spool::{PartState, segment_file};

/// File name of the quarantine inside a dataset.
pub const QUARANTINE_FILE: &str = "quarantine.jsonl";
/// File name of the list of benchmark texts that were found in documents.
pub const CONTAMINATION_FILE: &str = "contamination.jsonl";
/// File name of the masked sample of personal data that was found.
pub const PII_AUDIT_FILE: &str = "pii_audit.jsonl";
/// Input files of a part at most.
const MAX_FILES: usize = 1024;

/// Consecutive files, about `bytes` stored bytes together. A larger file is a part of its own: its rows are judged in
/// parallel, but by one process.
pub(super) fn plan(files: &[InputFile], bytes: u64) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut held = 0;
    for (number, file) in files.iter().enumerate() {
        match parts.last_mut() {
            Some(part) if held + file.bytes <= bytes && part.len() < MAX_FILES => {
                part.end = number + 1;
                held += file.bytes;
            }
            _ => {
                parts.push(number..number + 1);
                held = file.bytes;
            }
        }
    }
    parts
}

/// The folder of all parts for a key, below the work folder.
pub(super) fn folder(key: &str) -> PathBuf {
    PathBuf::from(format!("parts-{}", key.get(..16).unwrap_or(key)))
}

/// Whether a name is that of a folder of parts.
pub(super) fn is_folder(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with("parts-")
}

/// Name of a part.
pub(super) fn name(number: usize) -> String {
    format!("{number:05}")
}

/// Joins the quarantined records, the hits and the samples of personal data of all parts into files in `dir`.
pub(super) fn gather(parts: &[(PathBuf, PartState)], root: &Path, dir: &Path) -> Result<(), PrepareError> {
    for (kind, name, always) in [("quarantine", QUARANTINE_FILE, true), ("hits", CONTAMINATION_FILE, false)] {
        let any = parts.iter().flat_map(|(_, part)| &part.segments).any(|segment| segment.hits_bytes > 0);
        if !always && !any {
            continue;
        }
        let path = dir.join(name);
        let mut out = File::create(&path).map_err(PrepareError::io(&path, "created"))?;
        for (below, part) in parts {
            for number in 0..part.segments.len() {
                let from = segment_file(&root.join(below), number, kind);
                let mut file = File::open(&from).map_err(PrepareError::io(&from, "read"))?;
                io::copy(&mut file, &mut out).map_err(PrepareError::io(&path, "written"))?;
            }
        }
        out.sync_all().map_err(PrepareError::io(&path, "written"))?;
    }
    let mut audit = AuditSample::default();
    parts.iter().for_each(|(_, part)| audit.merge(part.audit.clone()));
    if audit.entries().next().is_some() {
        super::write_durably(&dir.join(PII_AUDIT_FILE), &audit.to_lines())?;
    }
    Ok(())
}
