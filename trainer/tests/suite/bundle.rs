//! Promise: a bundle carries a whole run to a place without a network, where the program inside it trains to the same bits;
//! while a run trains, Prometheus can read it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{final_digest, jazari, run, run_ok, text, tiny_arguments, tiny_dataset, train_tiny};

#[test]
fn a_site_without_a_network_trains_from_a_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let whole = dir.path().join("whole");
    train_tiny(&whole, &[]);
    run_ok(&["key", "new", &at("institute")]);
    let data = format!("data={}", tiny_dataset().display());
    let created = run_ok(&["bundle", "create", "configs", &data, "--key", &at("institute"), "--out", &at("site.jz")]);
    assert!(text(&created).contains("site.jz: ") && text(&created).contains("signed with key"), "{}", text(&created));
    run_ok(&["bundle", "verify", &at("site.jz"), "--key", &at("institute.pub")]);
    run_ok(&["bundle", "unpack", &at("site.jz"), "--key", &at("institute.pub"), "--out", &at("site")]);

    // In a network namespace of its own where that is allowed: not even loopback is up.
    let alone = Command::new("unshare").args(["--net", "true"]).output().is_ok_and(|done| done.status.success());
    if !alone {
        eprintln!("SKIPPED: network namespaces are not allowed here, so the run below could have used one");
    }
    let mut command = if alone { Command::new("unshare") } else { Command::new("env") };
    let there =
        command.args(if alone { &["--net"][..] } else { &[] }).args(["bin/jazari", "train", "configs/ci-tiny.yaml"]);
    let ended =
        there.args(["--set", "datasets=[{path: data}]", "--set", "output_dir=run"]).current_dir(at("site")).output();
    let ended = ended.unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended));
    assert_eq!(final_digest(Path::new(&at("site/run"))), final_digest(&whole));

    for (arguments, code, words) in [
        (
            vec!["bundle", "create", "nowhere", "--key", &at("institute"), "--out", &at("b.jz")],
            2,
            "nowhere: there is no such",
        ),
        (
            vec!["bundle", "create", "configs", "--key", &at("institute"), "--out", &at("site.jz")],
            2,
            "it exists already",
        ),
        (vec!["bundle", "unpack", &at("site.jz"), "--out", &at("site")], 2, "it exists already"),
        (vec!["bundle", "verify", &at("institute.pub")], 1, "no whole bundle"),
        (vec!["bundle", "verify", &at("none.jz")], 2, "none.jz"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{}", text(&output));
        assert!(text(&output).contains(words), "{arguments:?}\n{}", text(&output));
    }
}

/// The figures of a run that is training, as text.
fn scrape(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: run\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn prometheus_reads_a_run_that_is_training() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    // The run waits for power until it was read.
    let go = dir.path().join("go");
    let window = format!(
        "power_window={{command: \"test ! -e {0}/metrics.jsonl || ! grep -q grad_norm {0}/metrics.jsonl || test -e {1}\", check_every: 0.000001}}",
        output.display(),
        go.display()
    );
    let arguments = tiny_arguments(&output, &["logging_steps=1", &format!("prometheus={free}"), &window]);
    let child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let since = Instant::now();
    let page = loop {
        assert!(since.elapsed() < Duration::from_secs(60), "the run never paused");
        match scrape(&free).filter(|page| page.contains("\njazari_paused 1\n")) {
            Some(page) => break page,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    for line in [
        "jazari_step 1\n",
        "jazari_max_steps 30\n",
        "jazari_saved_step 1\n",
        "jazari_bits_per_byte{language=\"zgh_Tfng\"} ",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    fs::write(go, "").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended));
    assert!(text(&ended).contains(&format!("figures for Prometheus at http://{free}/metrics")), "{}", text(&ended));

    let arguments = tiny_arguments(&dir.path().join("other"), &["prometheus=localhost"]);
    let refused = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("no address and port"), "{}", text(&refused));
}
