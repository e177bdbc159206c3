//! Promise: the guide says the same in all its languages, its links lead somewhere, its commands are marked as such (so
//! that `scripts/check-docs.sh` runs them), and every recipe has a row that says what it costs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

fn pages(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|end| end == "md"));
    pages
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The fenced blocks of a page: the word after the fence, and the lines.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(word), None) => open = Some((word.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, text))) => *text += &format!("{}\n", line.trim_start()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed:\n{page}");
    blocks
}

/// Levels of the headings, and the first word of those that begin with an error's code.
fn headings(page: &str) -> Vec<(usize, Option<&str>)> {
    let mut is_code = false;
    let outside = page.lines().filter(|line| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code && line.starts_with('#')
    });
    outside
        .map(|line| {
            let word = line.trim_start_matches('#').split_whitespace().next();
            let is_a_code = |word: &&str| word.len() == 5 && word.starts_with('J') && word[1..].parse::<u32>().is_ok();
            (line.chars().take_while(|c| *c == '#').count(), word.filter(is_a_code))
        })
        .collect()
}

#[test]
fn translations_have_the_commands_and_headings_of_the_english_page() {
    let guide = root().join("docs/guide");
    let english = pages(&guide);
    for language in ["fr", "ar"] {
        let translated = pages(&guide.join(language));
        let mut compared = 0;
        for (name, page) in &translated {
            // First pages are written anew for their readers.
            let Some(original) = english.get(name) else { continue };
            assert_eq!(
                blocks(page),
                blocks(original),
                "docs/guide/{language}/{name}: code that is not the English page's"
            );
            assert_eq!(headings(page), headings(original), "docs/guide/{language}/{name}");
            compared += 1;
        }
        assert!(compared >= 13, "{language}: {compared} pages");
    }
}

#[test]
fn commands_are_marked_and_links_lead_somewhere() {
    let root = root();
    let mut files: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(|name| root.join(name)).into();
    for folder in ["docs", "docs/adr", "docs/guide", "docs/guide/fr", "docs/guide/ar", "benches/results"] {
        files.extend(pages(&root.join(folder)).into_keys().map(|name| root.join(folder).join(name)));
    }
    let link = fancy_regex::Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)").unwrap();
    let (mut links, mut commands) = (0, 0);
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let folder = file.parent().unwrap();
        for found in link.captures_iter(&text).map(|found| found.unwrap()) {
            let target = found.get(1).unwrap().as_str();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            assert!(folder.join(target).exists(), "{}: a link to {target}, which is not there", file.display());
        }
        if !file.starts_with(root.join("docs/guide")) {
            continue;
        }
        for (word, block) in blocks(&text) {
            let is_command = |line: &str| line.starts_with("jazari ") && !line.contains('|') && !line.contains(": ");
            commands += usize::from(word == "sh");
            let stray = block.lines().find(|line| word.is_empty() && is_command(line));
            assert!(stray.is_none(), "{}: a command in a block that is not marked `sh`: {stray:?}", file.display());
        }
    }
    assert!(links > 150 && commands > 80, "{links} links, {commands} blocks");
}

#[test]
fn every_recipe_has_a_row_of_what_it_costs() {
    let root = root();
    let table = fs::read_to_string(root.join("docs/guide/recipes.md")).unwrap();
    let recipes = fs::read_dir(root.join("configs")).unwrap().map(|entry| entry.unwrap().path());
    for recipe in recipes.filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
        let name = recipe.file_name().unwrap().to_str().unwrap().to_owned();
        let row = table.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/guide/recipes.md: no row for {name}"));
        let cells: Vec<&str> = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells.len(), 7, "{row}");
        let is_measured = cells[2..4].iter().all(|cell| cell.chars().any(|c| c.is_ascii_digit()));
        assert!(is_measured || row.contains("not measured"), "{row}");
    }
}
