//! Owns files that list what must stay out: identifiers, addresses, domains and corpora; never reads texts.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::address::Address;

/// Largest list in bytes: about fifty million addresses.
const MAX_LIST_BYTES: u64 = 4 << 30;

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptOutError {
    /// The disk refused.
    #[error("{}: the opt-out list cannot be read; check the path and permissions", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A line that names nothing.
    #[error(
        "{}:{line}: `{text}` is no entry of an opt-out list ({reason}); write `id: X`, `url: PREFIX`, `domain: HOST` or \
         `source: NAME`", .path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// Its beginning.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What a document is called, for looking it up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its identifier, 32 hexadecimal digits.
    pub id: &'a str,
    /// The identifier that the row itself gives.
    pub given_id: Option<&'a str>,
    /// Where it was published.
    pub url: Option<&'a str>,
    /// Its corpus.
    pub source: &'a str,
}

/// The entries of any number of lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptOutList {
    ids: HashSet<String>,
    addresses: HashSet<String>,
    /// Lengths in bytes that occur in `addresses`: a lookup tries each once.
    lengths: BTreeSet<usize>,
    domains: HashSet<String>,
    sources: HashSet<String>,
    digest: Option<String>,
}

/// An entry as a line of JSON.
#[derive(Deserialize)]
struct Row {
    id: Option<String>,
    #[serde(alias = "url_prefix")]
    url: Option<String>,
    domain: Option<String>,
    source: Option<String>,
}

impl OptOutList {
    /// Reads lists.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that names nothing.
    pub fn read(paths: &[PathBuf]) -> Result<Self, OptOutError> {
        let mut list = Self::default();
        let mut hasher = blake3::Hasher::new_derive_key("jazari opt-out lists");
        for path in paths {
            let failed = |source| OptOutError::Io { path: path.clone(), source };
            if std::fs::metadata(path).map_err(failed)?.len() > MAX_LIST_BYTES {
                return Err(failed(io::Error::other(format!("more than {MAX_LIST_BYTES} bytes"))));
            }
            let text = std::fs::read_to_string(path).map_err(failed)?;
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
            list.add_text(path, &text)?;
        }
        list.digest = (!paths.is_empty()).then(|| hasher.finalize().to_hex().to_string());
        Ok(list)
    }

    /// Adds the entries of a list that was read from `path`.
    ///
    /// # Errors
    /// The first line that names nothing.
    pub fn add_text(&mut self, path: &Path, text: &str) -> Result<(), OptOutError> {
        for (line, entry) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            let entry = entry.trim();
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            self.add(entry).map_err(|reason| OptOutError::Line {
                path: path.to_owned(),
                line,
                text: entry.chars().take(60).collect(),
                reason,
            })?;
        }
        Ok(())
    }

    fn add(&mut self, entry: &str) -> Result<(), &'static str> {
        if entry.starts_with('{') {
            let row: Row = serde_json::from_str(entry).map_err(|_| "not one JSON object")?;
            // The narrowest that is there: a row that describes a document does not opt its whole corpus out.
            let given = [("id", row.id), ("url", row.url), ("domain", row.domain), ("source", row.source)];
            let first = given.into_iter().find_map(|(kind, value)| Some((kind, value?)));
            let (kind, value) = first.ok_or("it has none of `id`, `url`, `domain`, `source`")?;
            return self.insert(kind, &value);
        }
        match entry.split_once(':') {
            Some((kind, value)) if !value.starts_with("//") => self.insert(kind.trim(), value),
            Some(_) => self.insert("url", entry),
            None if entry.len() == 32 && entry.bytes().all(|b| b.is_ascii_hexdigit()) => self.insert("id", entry),
            None if entry.contains('/') && entry.contains('.') => self.insert("url", entry),
            None if is_domain(entry) => self.insert("domain", entry),
            None => Err("it does not say what it is"),
        }
    }

    /// Adds an entry: `id`, `url` (a prefix), `domain` or `source`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn insert(&mut self, kind: &str, value: &str) -> Result<(), &'static str> {
        let value = value.trim();
        if value.is_empty() {
            return Err("nothing is named");
        }
        match kind.to_ascii_lowercase().as_str() {
            "id" => {
                let is_own = value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit());
                self.ids.insert(if is_own { value.to_ascii_lowercase() } else { value.to_owned() });
            }
            "url" | "url-prefix" | "url_prefix" | "prefix" => {
                let address = Address::of(value.trim_end_matches('*'));
                self.lengths.insert(address.as_str().len());
                self.addresses.insert(address.as_str().to_owned());
            }
            "domain" | "host" => {
                let value = value.trim_start_matches("*.").trim_start_matches('.');
                let host = Address::of(value).host().to_owned();
                if !is_domain(&host) {
                    return Err("that is no host name");
                }
                self.domains.insert(host);
            }
            "source" => _ = self.sources.insert(value.to_owned()),
            _ => return Err("its kind is unknown"),
        }
        Ok(())
    }

    /// The identifiers listed.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(String::as_str)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.ids.len() + self.addresses.len() + self.domains.len() + self.sources.len()
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hexadecimal BLAKE3 of the files read; `None` when there were none. A data set made with other lists is another.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What of a document is listed: `list_id`, `list_url`, `list_domain` or `list_source`.
    pub fn find(&self, candidate: Candidate<'_>) -> Option<&'static str> {
        if self.is_empty() {
            return None;
        }
        if self.sources.contains(candidate.source) {
            return Some("list_source");
        }
        if self.ids.contains(candidate.id) || candidate.given_id.is_some_and(|id| self.ids.contains(id)) {
            return Some("list_id");
        }
        if self.addresses.is_empty() && self.domains.is_empty() {
            return None;
        }
        let address = Address::of(candidate.url.filter(|url| !url.trim().is_empty())?);
        if address.domains().any(|domain| self.domains.contains(domain)) {
            return Some("list_domain");
        }
        let begins = |&length: &usize| address.as_str().get(..length).is_some_and(|head| self.addresses.contains(head));
        self.lengths.iter().any(begins).then_some("list_url")
    }
}

fn is_domain(text: &str) -> bool {
    text.contains('.') && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn list(text: &str) -> Result<OptOutList, OptOutError> {
        let mut list = OptOutList::default();
        list.add_text(Path::new("list"), text).map(|()| list)
    }

    #[test]
    fn every_kind_of_entry_finds_what_it_names_and_nothing_else() {
        let list = list(
            "\u{feff}# asked for by mail\nid: 7\n0123456789ABCDEF0123456789abcdef\nsource: doda\n\
             https://example.org/private/\ndomain: news.ma\nblog.example.net\n\n{\"url\": \"a.org/x\", \"why\": \"mail\"}\n",
        )
        .unwrap();
        assert_eq!(list.len(), 7);
        let find = |id, given_id, url, source| list.find(Candidate { id, given_id, url, source });
        assert_eq!(find("f", Some("7"), None, "s"), Some("list_id"));
        assert_eq!(find("0123456789abcdef0123456789abcdef", None, None, "s"), Some("list_id"));
        assert_eq!(find("f", None, None, "doda"), Some("list_source"));
        assert_eq!(find("f", None, Some("http://www.example.org/private/1"), "s"), Some("list_url"));
        assert_eq!(find("f", None, Some("https://ar.news.ma/1"), "s"), Some("list_domain"));
        assert_eq!(find("f", None, Some("https://blog.example.net"), "s"), Some("list_domain"));
        assert_eq!(find("f", None, Some("https://a.org/xy"), "s"), Some("list_url"));
        for url in ["https://example.org/public", "https://goodnews.ma/", "https://example.net/", "news", ""] {
            assert_eq!(find("f", Some("8"), Some(url), "s"), None, "{url}");
        }
        assert_eq!(OptOutList::default().find(Candidate::default()), None);
    }

    #[test]
    fn lines_that_name_nothing_are_refused_with_their_number() {
        for bad in ["just words", "id:", "kind: x", "{\"why\": 1}", "domain: x", "{"] {
            let message = list(&format!("id: 1\n{bad}\n")).unwrap_err().to_string();
            assert!(message.starts_with("list:2: `") && message.contains("write `id: X`"), "{bad}: {message}");
        }
    }

    #[test]
    fn files_are_read_and_their_digest_follows_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        std::fs::write(&path, "id: 1\n").unwrap();
        let one = OptOutList::read(std::slice::from_ref(&path)).unwrap();
        std::fs::write(&path, "id: 2\n").unwrap();
        let two = OptOutList::read(std::slice::from_ref(&path)).unwrap();
        assert!(one.digest().is_some() && one.digest() != two.digest());
        assert_eq!(OptOutList::read(&[]).unwrap().digest(), None);
        assert!(OptOutList::read(&[dir.path().join("none")]).unwrap_err().to_string().contains("cannot be read"));
    }
}
