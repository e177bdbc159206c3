//! Owns the tests of bundles: what is packed comes out again, and nothing else ever does; never touches a network.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::certificate::subjects::Subject;

fn nothing(_: u64) {}

fn key(folder: &Path, name: &str) -> PrivateKey {
    PrivateKey::create(&folder.join(name)).unwrap().0
}

/// A folder with a program, a nested file, an empty one and one with a name of two scripts.
fn content(folder: &Path) -> Vec<(String, PathBuf)> {
    let recipes = folder.join("recipes");
    fs::create_dir_all(recipes.join("deep/er")).unwrap();
    fs::write(recipes.join("deep/er/a.yaml"), "seed: 1\n").unwrap();
    fs::write(recipes.join("فارغ ⵎ"), "").unwrap();
    fs::write(recipes.join(".hidden"), "no").unwrap();
    fs::write(recipes.join("x".repeat(150)), "long name").unwrap();
    let program = folder.join("program");
    fs::write(&program, vec![7u8; 3_000_000]).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    vec![("bin/jazari".into(), program), ("recipes".into(), recipes)]
}

#[test]
fn what_is_packed_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let signer = key(dir.path(), "signer");
    let content = content(dir.path());
    let statement = pack(&at("site.jz"), &content, &signer, &nothing).unwrap();
    assert_eq!(statement.predicate.files.len(), 4);
    let read = AtomicU64::new(0);
    let count = |bytes: u64| {
        read.fetch_add(bytes, Ordering::Relaxed);
    };
    let opened = open(&at("site.jz"), Some(&signer.public()), None, &count).unwrap();
    assert_eq!((opened.statement, read.into_inner()), (statement, 3_000_017));
    assert!(fs::metadata(at("site.jz")).unwrap().len() < 100_000);

    open(&at("site.jz"), None, Some(&at("out")), &nothing).unwrap();
    assert_eq!(fs::read_to_string(at("out/recipes/deep/er/a.yaml")).unwrap(), "seed: 1\n");
    assert_eq!(fs::read(at("out/bin/jazari")).unwrap(), vec![7u8; 3_000_000]);
    assert_eq!(fs::read(at("out/recipes/فارغ ⵎ")).unwrap(), b"");
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("out/bin/jazari") & 0o111 != 0, mode("out/recipes/deep/er/a.yaml") & 0o111), (true, 0));
    assert!(!at("out/recipes/.hidden").exists());
    let told = open(&at("site.jz"), None, Some(&at("out")), &nothing).unwrap_err().to_string();
    assert!(told.contains("it exists already"), "{told}");
    assert!(pack(&at("site.jz"), &content, &signer, &nothing).unwrap_err().to_string().contains("it exists already"));
}

#[test]
fn damage_anywhere_is_refused_and_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let signer = key(dir.path(), "signer");
    pack(&at("site.jz"), &content(dir.path()), &signer, &nothing).unwrap();
    let whole = fs::read(at("site.jz")).unwrap();
    let plain = zstd::decode_all(&whole[..]).unwrap();
    let refuse = |name: &str, bytes: &[u8]| {
        fs::write(at("bad.jz"), bytes).unwrap();
        let told = open(&at("bad.jz"), Some(&signer.public()), Some(&at("out")), &nothing).unwrap_err().to_string();
        assert!(!at("out").exists(), "{name}");
        let left =
            fs::read_dir(dir.path()).unwrap().filter(|e| e.as_ref().unwrap().path().ends_with("unpacking")).count();
        assert_eq!(left, 0, "{name}");
        told
    };
    for cut in [0, 3, whole.len() / 2, whole.len() - 1] {
        refuse("cut", &whole[..cut]);
    }
    // Every byte of the archive is under the signature, or makes it no archive.
    for at in (0..plain.len()).step_by(plain.len() / 97) {
        let mut changed = plain.clone();
        changed[at] ^= 0x10;
        let is_padding = plain[at] == 0;
        let packed = zstd::encode_all(&changed[..], 1).unwrap();
        fs::write(dir.path().join("bad.jz"), &packed).unwrap();
        let found = open(&dir.path().join("bad.jz"), Some(&signer.public()), None, &nothing);
        assert!(found.is_err() || is_padding, "byte {at} was changed and nobody noticed");
    }
    let told = refuse("text", b"hello");
    assert!(told.contains("no whole bundle"), "{told}");
    let stranger = key(dir.path(), "stranger");
    let told = open(&at("site.jz"), Some(&stranger.public()), None, &nothing).unwrap_err().to_string();
    assert!(told.contains("not with the key"), "{told}");
}

/// An entry of an archive that an attacker makes by hand.
struct Hand {
    name: &'static str,
    kind: tar::EntryType,
    content: &'static [u8],
}

fn file(name: &'static str, content: &'static [u8]) -> Hand {
    Hand { name, kind: tar::EntryType::Regular, content }
}

/// An archive whose list names `listed` and that holds `entries`, all of it well signed.
fn by_hand(signer: &PrivateKey, listed: &[(&str, &[u8])], entries: &[Hand]) -> Vec<u8> {
    let digest = |content: &[u8]| hex(&Sha256::digest(content));
    let subject = |(name, content): &(&str, &[u8])| Subject {
        name: (*name).into(),
        digest: subjects::DigestSet { sha256: digest(content) },
    };
    let entry = |(name, content): &(&str, &[u8])| {
        ((*name).to_owned(), Entry { bytes: content.len() as u64, executable: false })
    };
    let files = listed.iter().map(entry).collect();
    let listing = Listing { packed_unix_ms: 0, jazari: String::new(), signer: signer.public().to_pem(), files };
    let text = Statement::new(listed.iter().map(subject).collect(), listing).seal(signer);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header(text.len() as u64, false), LIST, text.as_bytes()).unwrap();
    for Hand { name, kind, content } in entries {
        let mut header = header(content.len() as u64, false);
        header.set_entry_type(*kind);
        // What `set_path` refuses.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if *kind != tar::EntryType::Regular {
            header.as_old_mut().linkname[..11].copy_from_slice(b"/etc/passwd");
        }
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    zstd::encode_all(&archive.into_inner().unwrap()[..], 1).unwrap()
}

/// A name that would fill the memory of whoever reads it whole.
static LONG: [u8; 1 << 20] = [b'x'; 1 << 20];

fn name(content: &'static [u8]) -> Hand {
    Hand { name: "././@LongLink", kind: tar::EntryType::GNULongName, content }
}

fn extended(content: &'static [u8]) -> Hand {
    Hand { name: "pax", kind: tar::EntryType::XHeader, content }
}

#[test]
fn a_hostile_packer_gets_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/b");
    fs::create_dir_all(&folder).unwrap();
    let signer = key(dir.path(), "signer");
    let link = |name: &'static str, kind| Hand { name, kind, content: b"" };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("up", by_hand(&signer, &[("../evil", b"x")], &[file("../evil", b"x")]), "would leave the folder"),
        ("inner up", by_hand(&signer, &[("c/../../evil", b"x")], &[file("c/../../evil", b"x")]), "would leave"),
        ("root", by_hand(&signer, &[("/tmp/evil", b"x")], &[file("/tmp/evil", b"x")]), "would leave the folder"),
        ("dot", by_hand(&signer, &[("./a", b"x")], &[file("./a", b"x")]), "would leave the folder"),
        ("symlink", by_hand(&signer, &[("a", b"")], &[link("a", tar::EntryType::Symlink)]), "is no file of 0 bytes"),
        ("hard link", by_hand(&signer, &[("a", b"")], &[link("a", tar::EntryType::Link)]), "is no file of 0 bytes"),
        ("pipe", by_hand(&signer, &[("a", b"")], &[link("a", tar::EntryType::Fifo)]), "is no file of 0 bytes"),
        ("folder", by_hand(&signer, &[("a", b"")], &[link("a", tar::EntryType::Directory)]), "is no file of 0 bytes"),
        ("twice", by_hand(&signer, &[("a", b"x")], &[file("a", b"x"), file("a", b"x")]), "stands there twice"),
        ("extra", by_hand(&signer, &[("a", b"x")], &[file("a", b"x"), file("b", b"x")]), "`b` is not in its list"),
        ("missing", by_hand(&signer, &[("a", b"x"), ("b", b"y")], &[file("a", b"x")]), "`b` is missing"),
        ("longer", by_hand(&signer, &[("a", b"x")], &[file("a", b"xx")]), "is no file of 1 bytes"),
        ("other", by_hand(&signer, &[("a", b"x")], &[file("a", b"y")]), "`a` was changed"),
        ("file as folder", by_hand(&signer, &[("a", b"x"), ("a/b", b"y")], &[file("a", b"x"), file("a/b", b"y")]), ""),
        ("endless name", by_hand(&signer, &[("a", b"x")], &[name(&LONG), file("a", b"x")]), "longer than 4096 bytes"),
        (
            "renamed",
            by_hand(&signer, &[("a", b"x")], &[name(b"../evil\0"), file("a", b"x")]),
            "`../evil` is not in its list",
        ),
        ("other format", by_hand(&signer, &[("a", b"x")], &[extended(b"18 path=../../evil\n"), file("a", b"x")]), ""),
        ("repeated", by_hand(&signer, &[("a", b"x"), ("a", b"x")], &[file("a", b"x")]), "contradicts itself"),
    ];
    for (name, bytes, words) in cases {
        let path = dir.path().join("bad.jz");
        fs::write(&path, bytes).unwrap();
        let told = open(&path, None, Some(&folder.join("out")), &nothing).unwrap_err().to_string();
        assert!(told.contains(words), "{name}: {told}");
        assert!(fs::read_dir(&folder).unwrap().next().is_none(), "{name} left something behind");
        assert!(!dir.path().join("evil").exists() && !dir.path().join("a/evil").exists(), "{name}");
    }
}

/// A list that claims more than the disk holds is refused before a byte is written.
#[test]
fn a_bomb_is_refused_by_its_own_list() {
    let dir = tempfile::tempdir().unwrap();
    let signer = key(dir.path(), "signer");
    let subject = Subject { name: "a".into(), digest: subjects::DigestSet { sha256: "0".repeat(64) } };
    let files = [("a".to_owned(), Entry { bytes: u64::MAX / 2, executable: false })].into();
    let listing = Listing { packed_unix_ms: 0, jazari: String::new(), signer: signer.public().to_pem(), files };
    let text = Statement::new(vec![subject], listing).seal(&signer);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header(text.len() as u64, false), LIST, text.as_bytes()).unwrap();
    let path = dir.path().join("bomb.jz");
    fs::write(&path, zstd::encode_all(&archive.into_inner().unwrap()[..], 1).unwrap()).unwrap();
    let told = open(&path, None, Some(&dir.path().join("out")), &nothing).unwrap_err().to_string();
    assert!(told.contains("are free; free some space"), "{told}");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn what_cannot_be_packed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let signer = key(dir.path(), "signer");
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("file"), "x").unwrap();
    fs::create_dir(at("links")).unwrap();
    std::os::unix::fs::symlink(at("file"), at("links/link")).unwrap();
    for (content, words) in [
        (vec![("a".to_owned(), at("none"))], "none: cannot look at"),
        (vec![("a".to_owned(), at("empty"))], "there is no file in it"),
        (vec![("../a".to_owned(), at("file"))], "is no name for a file"),
        (vec![(LIST.to_owned(), at("file"))], "is no name for a file"),
        (vec![("a".to_owned(), at("file")), ("a".to_owned(), at("file"))], "two files would be called `a`"),
        (vec![("a".to_owned(), at("links"))], "it is a symbolic link"),
    ] {
        let told = pack(&at("out.jz"), &content, &signer, &nothing).unwrap_err().to_string();
        assert!(told.contains(words), "{words}: {told}");
        assert!(!at("out.jz").exists());
    }
}
