//! Tests of what lies between two stages, also after a crash.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::part::PART_FILE;
use super::*;

fn entry(i: u32, url: &str, text: &str, notes: &str) -> Entry {
    Entry {
        offset: 0,
        segment: 0,
        id: [i as u8; 16],
        split: u64::from(i) << 40,
        key: u128::from(i),
        group: i % 2,
        licence: 0,
        file: 0,
        url_len: url.len() as u32,
        text_len: text.len() as u32,
        notes_len: notes.len() as u32,
        words: 1,
    }
}

const DOCUMENTS: [(&str, &str); 4] = [("", "سلام"), ("https://a", "wach"), ("", "ⵢⴰⵏ"), ("u", "4")];

fn write_part(dir: &Path, documents: &[(&str, &str)], first: u32) -> io::Result<()> {
    let mut writer = PartWriter::open(dir, "key")?;
    for (i, (url, text)) in (first..).zip(documents) {
        let notes = if i == 3 { r#"{"given":"ary_Arab"}"# } else { "" };
        writer.add(entry(i, url, text, notes), format!("{url}{text}{notes}").as_bytes())?;
    }
    writer.quarantine(b"{}")?;
    writer.commit()
}

fn finish(dir: &Path) -> PartState {
    PartWriter::open(dir, "key").unwrap().finish().unwrap()
}

fn write(root: &Path) {
    write_part(&root.join("p"), &DOCUMENTS[..2], 0).unwrap();
    write_part(&root.join("p"), &DOCUMENTS[2..], 2).unwrap();
    let part = finish(&root.join("p"));
    assert_eq!((part.segments.len(), part.quarantined), (2, 2));
    let group = |lang: &str| Group { lang: lang.to_owned(), source: "s".to_owned() };
    let mut writer = SpoolWriter::create(root).unwrap();
    let mut segments = Vec::new();
    for (number, segment) in part.segments.iter().enumerate() {
        for entry in EntryReader::open(&segment_file(&root.join("p"), number, "idx")).unwrap() {
            writer.add(entry.unwrap()).unwrap();
        }
        let path = segment_file(Path::new("p"), number, "bin");
        segments.push((path, segment.bytes, segment.bytes_blake3.clone()));
    }
    let groups = vec![group("ary_Arab"), group("ary_Latn")];
    let labels = SpoolLabels { groups, licences: vec!["MIT".into()], cutoffs: vec![None, Some(1 << 40)], segments };
    writer.finish("key".into(), labels, Stats::default()).unwrap();
}

#[test]
fn documents_come_back_and_the_split_follows_the_cutoff() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let spool = Spool::reuse(dir.path(), dir.path(), "key").unwrap();
    assert!(Spool::reuse(dir.path(), dir.path(), "other").is_none());
    let entries: Vec<Entry> = spool.entries().unwrap().map(Result::unwrap).collect();
    let read: Vec<_> = entries.iter().map(|e| spool.document(e).unwrap()).collect();
    assert_eq!(read[3].notes.as_ref().unwrap().given.as_deref(), Some("ary_Arab"));
    assert_eq!(read[2].notes, None);
    let read: Vec<_> = read.iter().map(|d| (d.url.as_deref(), d.text.as_str(), d.lang.as_str())).collect();
    assert_eq!(read[0], (None, "سلام", "ary_Arab"));
    assert_eq!(read[1], (Some("https://a"), "wach", "ary_Latn"));
    assert_eq!(read[3], (Some("u"), "4", "ary_Latn"));
    let held: Vec<_> = entries.iter().map(|e| spool.is_validation(e)).collect();
    assert_eq!(held, [false, true, false, false]);
}

#[test]
fn a_changed_byte_in_any_file_is_noticed() {
    for name in ["p/00000.bin", "p/00001.bin", INDEX_FILE, SPOOL_FILE] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Spool::reuse(dir.path(), dir.path(), "key").is_none(), "{name}");
    }
}

#[test]
fn what_was_not_committed_is_forgotten_and_what_was_damaged_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("p");
    write_part(&part, &DOCUMENTS[..2], 0).unwrap();
    let mut writer = PartWriter::open(&part, "key").unwrap();
    writer.add(entry(2, "", "lost", ""), b"lost").unwrap();
    drop(writer);
    assert_eq!(PartState::read(&part, "key").unwrap().segments.len(), 1);
    assert!(PartState::read(&part, "other").is_none());
    for name in ["00000.bin", "00000.idx", "00000.quarantine", PART_FILE] {
        let whole = std::fs::read(part.join(name)).unwrap();
        std::fs::write(part.join(name), &whole[..whole.len() - 1]).unwrap();
        assert!(PartState::read(&part, "key").is_none(), "{name}");
        std::fs::write(part.join(name), whole).unwrap();
    }
    assert_eq!(finish(&part).segments.len(), 1);
}
