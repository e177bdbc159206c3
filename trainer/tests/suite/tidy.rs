//! The house rules as a test: dependency edges, file and function lengths, file names, module openings, stray prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 70;
const CRATES: [&str; 4] = ["trainer", "data-pipeline", "model-zoo", "benches"];
const BANNED_NAMES: [&str; 6] = ["utils.rs", "util.rs", "common.rs", "helpers.rs", "helper.rs", "misc.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for name in CRATES.iter().chain(&["patches"]) {
        rust_files(&root().join(name), &mut files);
    }
    files.sort();
    assert!(files.len() > 30, "the walk found only {} files", files.len());
    files.into_iter().map(|p| (p.strip_prefix(root()).unwrap().to_owned(), fs::read_to_string(&p).unwrap())).collect()
}

/// Names and lengths of functions: from the line that holds `fn` to the line where its braces close.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words: Vec<&str> = code.split_whitespace().take(6).collect();
        let is_function = words.contains(&"fn") && code.contains('(') && !code.starts_with("//");
        if !is_function {
            continue;
        }
        let indent = line.len() - code.len();
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[i..].iter().position(|l| {
            *l == closing
                || (l.trim_end().ends_with(';')
                    && l.contains(')')
                    && !l.contains('{')
                    && l.len() - l.trim_start().len() <= indent)
        });
        if let Some(length) = end
            && length + 1 > MAX_FUNCTION_LINES
        {
            long.push((i + 1, length + 1));
        }
    }
    long
}

#[test]
fn files_and_functions_are_short_and_well_named() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            faults.push(format!("{}: {lines} lines, at most {MAX_FILE_LINES}", path.display()));
        }
        for (line, length) in long_functions(&text) {
            faults
                .push(format!("{}:{line}: a function of {length} lines, at most {MAX_FUNCTION_LINES}", path.display()));
        }
        if path.file_name().is_some_and(|n| BANNED_NAMES.contains(&n.to_str().unwrap())) {
            faults.push(format!("{}: name the file for the noun it owns", path.display()));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{}: open the module with one sentence: owns X, never touches Y", path.display()));
        }
        if text.contains(concat!("TO", "DO")) || text.contains(concat!("FIX", "ME")) {
            faults.push(format!("{}: finish it, or file an issue", path.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_length_rule_sees_long_functions() {
    let body = "    let _ = 0;\n".repeat(MAX_FUNCTION_LINES - 2);
    assert!(long_functions(&format!("fn short() {{\n{body}}}\n")).is_empty());
    assert_eq!(long_functions(&format!("fn long() {{\n{body}    let _ = 1;\n}}\n")), [(1, MAX_FUNCTION_LINES + 1)]);
}

#[test]
fn prints_stand_only_in_the_command_line_module() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let allowed = path.starts_with("trainer/src/cli")
            || path.ends_with("trainer/src/main.rs")
            || path
                .components()
                .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "bin" || c.as_os_str() == "benches");
        let product = text.split("#[cfg(test)]").next().unwrap();
        for (i, line) in product.lines().enumerate() {
            let code = line.trim_start();
            if !allowed
                && !code.starts_with("//")
                && ["println!", "eprintln!", "print!", "dbg!"].iter().any(|p| code.contains(p))
            {
                faults.push(format!("{}:{}: {code}", path.display(), i + 1));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn backends_are_chosen_in_one_module() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let product = text.split("#[cfg(test)]").next().unwrap();
        let in_device = path.starts_with("trainer/src/device") || path.ends_with("trainer/src/device.rs");
        // Which engines of collectives a binary has is no matter of hardware; one file owns that choice.
        let knows_features = in_device || path.ends_with("trainer/src/cluster/engine.rs");
        for (i, line) in product.lines().enumerate() {
            let opens = ["Device::cuda", "Device::wgpu", "Device::vulkan", "Device::default()"];
            let chooses = (!in_device && opens.iter().any(|c| line.contains(c)))
                || (!knows_features && ["cfg(feature", "cfg!(feature"].iter().any(|c| line.contains(c)));
            if path.starts_with("trainer/src") && chooses {
                faults.push(format!("{}:{}: {}", path.display(), i + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let edges = |name: &str| -> Vec<String> {
        let package = metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
        let normal = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        normal.map(|d| d["name"].as_str().unwrap().to_owned()).collect()
    };
    let (data, zoo, trainer) = (edges("data-pipeline"), edges("model-zoo"), edges("trainer"));
    for banned in ["burn", "model-zoo", "trainer", "tokio", "reqwest"] {
        assert!(!data.iter().any(|d| d.starts_with(banned)), "data-pipeline must not depend on {banned}");
    }
    for banned in ["data-pipeline", "trainer", "tokio", "memmap2", "indicatif"] {
        assert!(!zoo.iter().any(|d| d == banned), "model-zoo must not depend on {banned}");
    }
    assert!(trainer.contains(&"data-pipeline".to_owned()) && trainer.contains(&"model-zoo".to_owned()));
    assert!(!trainer.contains(&"benches".to_owned()));
}

#[test]
fn model_zoo_has_no_files_clock_or_sockets() {
    for (path, text) in sources() {
        if !path.starts_with("model-zoo/src") {
            continue;
        }
        let product = text.split("#[cfg(test)]").next().unwrap();
        for banned in ["std::fs", "std::net", "std::time", "std::env", "thread::spawn"] {
            assert!(!product.contains(banned), "{} uses {banned}", path.display());
        }
    }
}

#[test]
fn burn_is_pinned_to_the_bit() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let pinned = |l: &&str| (l.starts_with("burn") || l.starts_with("cubecl")) && l.contains("version");
    for line in manifest.lines().filter(pinned) {
        assert!(line.contains("\"="), "pin it with `=`: {line}");
    }
    assert!(manifest.contains(&format!("burn = {{ version = \"={}\"", trainer::checkpoint::store::BURN_VERSION)));
}
