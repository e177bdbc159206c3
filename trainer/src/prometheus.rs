//! Owns the page of figures that Prometheus reads from a run: off unless asked for, one address, read only; never touches
//! the run.
//!
//! Text format version 0.0.4 (prometheus.io, "Exposition formats"). The page is made when an event comes; answering a
//! request copies it, so a slow reader holds nobody up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::events::{EvalRecord, Event, StepRecord};

/// Longest request that is read, bytes.
const REQUEST_LIMIT: usize = 8 << 10;
/// Longest time that one reader may take for a read or a write.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves the figures of a run until the process ends.
pub struct Exporter {
    address: SocketAddr,
    page: Arc<Mutex<String>>,
    figures: Figures,
}

#[derive(Default)]
struct Figures {
    max_steps: u64,
    step: Option<StepRecord>,
    evaluation: Option<EvalRecord>,
    skipped: u64,
    saved_step: Option<u64>,
    joules: Option<f64>,
    is_paused: bool,
}

impl Exporter {
    /// Listens at `address`.
    ///
    /// # Errors
    /// When the address cannot be listened at or the thread cannot be started.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let page = Arc::new(Mutex::new(String::new()));
        let served = Arc::clone(&page);
        std::thread::Builder::new().name("prometheus".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let text = served.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A reader that goes away is no concern of the run.
                let _ = answer(stream, &text);
            }
        })?;
        Ok(Self { address, page, figures: Figures::default() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes notice of an event.
    pub fn note(&mut self, event: &Event) {
        let figures = &mut self.figures;
        match event {
            Event::Started { max_steps, .. } => figures.max_steps = *max_steps,
            Event::Step(record) => {
                figures.joules =
                    record.energy_joules.map(|joules| joules + figures.joules.unwrap_or(0.0)).or(figures.joules);
                figures.step = Some(record.clone());
            }
            Event::Evaluated(record) => {
                figures.joules =
                    record.energy_joules.map(|joules| joules + figures.joules.unwrap_or(0.0)).or(figures.joules);
                figures.evaluation = Some(record.clone());
            }
            Event::Skipped { .. } => figures.skipped += 1,
            Event::Saved { step, .. } => figures.saved_step = Some(*step),
            Event::Paused { .. } => figures.is_paused = true,
            Event::Woken { .. } => figures.is_paused = false,
            _ => return,
        }
        let text = figures.render();
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

impl Figures {
    fn render(&self) -> String {
        let mut page = String::new();
        let mut put = |name: &str, help: &str, kind: &str, values: &[(String, f64)]| {
            if values.is_empty() {
                return;
            }
            // Writing to a String cannot fail.
            _ = writeln!(page, "# HELP jazari_{name} {help}\n# TYPE jazari_{name} {kind}");
            for (labels, value) in values {
                _ = writeln!(page, "jazari_{name}{labels} {value}");
            }
        };
        let one = |value: f64| vec![(String::new(), value)];
        put("max_steps", "Steps of the plan.", "gauge", &one(self.max_steps as f64));
        put("paused", "Whether the run waits for power.", "gauge", &one(f64::from(u8::from(self.is_paused))));
        put(
            "skipped_steps_total",
            "Steps that the guard skipped since the start.",
            "counter",
            &one(self.skipped as f64),
        );
        let saved = self.saved_step.map(|step| (String::new(), step as f64));
        put("saved_step", "Step of the newest checkpoint.", "gauge", saved.as_slice());
        let joules = self.joules.map(|joules| (String::new(), joules));
        put("energy_joules_total", "Joules drawn since the start.", "counter", joules.as_slice());
        if let Some(record) = &self.step {
            for (name, help, kind, value) in [
                ("step", "Steps done.", "gauge", record.step as f64),
                ("tokens_total", "Target tokens since the start of the run.", "counter", record.tokens as f64),
                ("loss", "Mean loss of the newest logged step, nats a token.", "gauge", record.loss),
                ("learning_rate", "Learning rate of that step.", "gauge", record.lr),
                ("grad_norm", "Gradient norm of that step before clipping.", "gauge", record.grad_norm),
                ("tokens_per_second", "Target tokens a second.", "gauge", record.tokens_per_second),
                ("mfu_ratio", "Share of the device's peak arithmetic.", "gauge", record.mfu),
                ("data_wait_ratio", "Share of the time spent waiting for data.", "gauge", record.data_wait),
                ("communication_ratio", "Share of the time spent exchanging gradients.", "gauge", record.communication),
                ("memory_bytes", "Peak resident memory of the process.", "gauge", record.memory_bytes as f64),
            ] {
                put(name, help, kind, &one(value));
            }
            let label = |language: &String| format!("{{language=\"{language}\"}}");
            let seen: Vec<_> =
                record.seen.iter().map(|(language, seen)| (label(language), seen.tokens as f64)).collect();
            put("seen_tokens_total", "Target tokens of a language since the start of the run.", "counter", &seen);
        }
        if let Some(record) = &self.evaluation {
            let scores: BTreeMap<_, _> = record.val.iter().map(|(language, score)| (language, score.bpb)).collect();
            let scores: Vec<_> =
                scores.into_iter().map(|(language, bpb)| (format!("{{language=\"{language}\"}}"), bpb)).collect();
            put("bits_per_byte", "Bits a byte of held-out text at the newest evaluation.", "gauge", &scores);
            put("evaluated_step", "Step of the newest evaluation.", "gauge", &one(record.step as f64));
        }
        page
    }
}

/// Answers one request.
fn answer(mut stream: TcpStream, page: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0u8; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut buffer)?;
        if count == 0 || request.len() + count > REQUEST_LIMIT {
            return Ok(());
        }
        request.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    let (status, body) = match request.split(|byte| *byte == b' ').collect::<Vec<_>>().as_slice() {
        [b"GET", b"/metrics", ..] => ("200 OK", page),
        [b"GET", ..] => ("404 Not Found", "the figures are at /metrics\n"),
        _ => ("405 Method Not Allowed", "the figures can only be read: GET /metrics\n"),
    };
    let length = body.len();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::events::LanguageScore;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // A request that is too long is not answered.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn figures_are_read_and_nothing_else_is_answered() {
        let mut exporter = Exporter::start("127.0.0.1:0".parse().unwrap()).unwrap();
        let score = LanguageScore { bpb: 1.25, loss: 2.0, tokens: 1, bytes: 1 };
        let val = [("zgh_Tfng".to_owned(), score)].into();
        exporter.note(&Event::Evaluated(EvalRecord {
            step: 5,
            val_bpb_all: 1.0,
            val,
            seconds: 0.1,
            energy_joules: Some(2.0),
        }));
        exporter.note(&Event::Paused { step: 7, why: "night".into() });
        exporter.note(&Event::Saved {
            step: 7,
            checkpoint: "c".into(),
            bytes: 1,
            seconds: 0.1,
            state_digest: String::new(),
        });
        let page = ask(exporter.address(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("version=0.0.4"), "{page}");
        for line in [
            "# TYPE jazari_bits_per_byte gauge\njazari_bits_per_byte{language=\"zgh_Tfng\"} 1.25\n",
            "\njazari_paused 1\n",
            "jazari_saved_step 7\n",
            "jazari_energy_joules_total 2\n",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
        assert!(ask(exporter.address(), "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(exporter.address(), "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert_eq!(ask(exporter.address(), &"x".repeat(10_000)), "");
        // Somebody who says nothing does not shut others out for long.
        let _silent = TcpStream::connect(exporter.address()).unwrap();
        assert!(ask(exporter.address(), "GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
    }
}
