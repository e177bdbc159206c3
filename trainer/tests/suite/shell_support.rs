//! Promise: shells complete every command that the program has, and each has a manual page.

use std::process::Command;

use crate::support::{jazari, root, run, run_ok, text};

/// Names of the commands that `jazari --help` lists.
fn commands() -> Vec<String> {
    let help = String::from_utf8(run_ok(&["--help"]).stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let named = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    named.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_is_completed_and_has_a_page() {
    let commands = commands();
    assert!(commands.len() >= 17 && commands.iter().any(|name| name == "train"), "{commands:?}");
    // How each shell's script offers a command.
    let forms = [
        ("bash", " NAME "),
        ("zsh", "(NAME)"),
        ("fish", "-a \"NAME\""),
        ("elvish", "cand NAME '"),
        ("powershell", "('NAME', 'NAME',"),
    ];
    for (shell, form) in forms {
        let script = String::from_utf8(run_ok(&["completions", shell]).stdout).unwrap();
        for name in &commands {
            assert!(script.contains(&form.replace("NAME", name)), "{shell} does not offer {name}");
        }
        assert!(!script.contains("selftest-rank"), "{shell} offers what --help hides");
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("share/man1");
    run_ok(&["man", "--out", pages.to_str().unwrap()]);
    for name in &commands {
        let page = std::fs::read_to_string(pages.join(format!("jazari-{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(pages.join("jazari-data-prepare.1").is_file());
    assert!(!pages.join("jazari-selftest-rank.1").exists(), "a hidden command has a page");
}

#[test]
fn bash_completes_with_the_script() {
    let script = run_ok(&["completions", "bash"]).stdout;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jazari");
    std::fs::write(&path, script).unwrap();
    let typed =
        "source \"$1\"; COMP_WORDS=(jazari da); COMP_CWORD=1; _jazari jazari da jazari; echo \"${COMPREPLY[@]}\"";
    let Ok(output) = Command::new("bash").args(["-c", typed, "bash"]).arg(&path).output() else {
        eprintln!("SKIPPED: there is no bash to complete with");
        return;
    };
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "data", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn mistakes_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = run(&["man", "--out", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("cannot write the pages"), "{}", text(&output));
    assert_eq!(jazari(&["completions", "csh"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn the_bill_of_materials_names_every_crate() {
    let bill: serde_json::Value = serde_json::from_slice(&run_ok(&["sbom"]).stdout).unwrap();
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert_eq!((bill["bomFormat"].as_str(), bill["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    assert_eq!(bill["components"].as_array().unwrap().len(), lock.matches("[[package]]").count());
}
