//! Owns what the processes say while joining and whether it fits together; never touches sockets.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::channel::{Channel, ChannelError, Wire};
use super::super::error::{ClusterError, Verdict};

/// Version of the messages; part of every handshake, so other versions are strangers.
pub(super) const PROTOCOL: &str = "jazari cluster, version 1";

/// Member to rank 0: who I am.
pub(super) const HELLO: u8 = 1;
/// You are in; wait for the rest.
pub(super) const WELCOME: u8 = 2;
/// Rank 0 to members: everybody's address.
pub(super) const ROSTER: u8 = 3;
/// Higher rank to lower: this is the data connection of rank so and so.
pub(super) const LINK: u8 = 4;
/// Member to rank 0: all my data connections stand.
pub(super) const READY: u8 = 5;
/// Rank 0 to members: everybody's do.
pub(super) const GO: u8 = 6;
/// Why it ends here, in either direction.
pub(super) const FAREWELL: u8 = 7;
/// Rank 0 to a member that waits: somebody else wants your seat, are you there?
pub(super) const PROBE: u8 = 8;
/// The answer: yes.
pub(super) const HERE: u8 = 9;

/// Differing facts named in one message, at most.
const MAX_DIFFERENCES: usize = 4;

/// What a process says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hello {
    pub run_id: String,
    pub rank: usize,
    pub world: usize,
    pub host: String,
    pub pid: u32,
    pub facts: Vec<(String, String)>,
    /// Where it listens for data, if at one address only.
    pub data_ip: Option<IpAddr>,
    pub data_port: u16,
}

impl Hello {
    pub(super) fn name(&self) -> String {
        format!("rank {} (host {}, pid {})", self.rank, self.host, self.pid)
    }
}

/// Everybody's place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Roster {
    /// Random, so that data connections of another rendezvous do not fit.
    pub session: String,
    pub wire: Wire,
    /// By rank.
    pub entries: Vec<Entry>,
}

/// A process as the others reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub host: String,
    pub pid: u32,
    /// `None`: at the address where rank 0 is reached.
    pub ip: Option<IpAddr>,
    pub port: u16,
}

/// First words on a data connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Link {
    pub rank: usize,
}

/// Why it ends here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Farewell {
    /// The processes do not belong together.
    Refused { what: String, advice: String },
    /// A process is lost.
    Lost(Verdict),
    /// Somebody did not come in time.
    Absent { what: String, advice: String },
}

impl Farewell {
    /// The same reason for the others; `teller` is blamed for what failed on its host alone.
    pub(super) fn of(error: &ClusterError, teller: &Hello) -> Self {
        match error {
            ClusterError::Refused { what, advice } => Self::Refused { what: what.clone(), advice: advice.clone() },
            ClusterError::Lost(verdict) => Self::Lost(verdict.clone()),
            ClusterError::Absent { what, advice } => Self::Absent { what: what.clone(), advice: advice.clone() },
            // Its own supervisor knows why; the others must not take their run for finished.
            ClusterError::Stopped(what) => Self::Absent {
                what: what.clone(),
                advice: "start it again unless the run was meant to stop".to_owned(),
            },
            ClusterError::Local { what, cause, .. } => {
                let cause = format!("{what}: {cause}");
                match super::lost(teller.rank, &teller.host, teller.pid, super::Cause::Failed, cause) {
                    ClusterError::Lost(verdict) => Self::Lost(verdict),
                    other => Self::Refused { what: other.to_string(), advice: "try again".to_owned() },
                }
            }
        }
    }

    /// The reason as an error of this process.
    pub(super) fn into_error(self) -> ClusterError {
        match self {
            Self::Refused { what, advice } => ClusterError::Refused { what, advice },
            Self::Lost(verdict) => ClusterError::Lost(verdict),
            Self::Absent { what, advice } => ClusterError::Absent { what, advice },
        }
    }
}

/// Sends a message as JSON in one frame.
pub(super) fn send<T: Serialize>(channel: &mut Channel, kind: u8, message: &T) -> Result<(), ChannelError> {
    let text =
        serde_json::to_vec(message).map_err(|e| ChannelError::Protocol(format!("cannot write a message: {e}")))?;
    channel.sender().send(kind, &text)
}

/// Reads a message, which must be of this kind.
pub(super) fn parse<T: DeserializeOwned>(expected: u8, frame: &(u8, Vec<u8>)) -> Result<T, ChannelError> {
    let (kind, payload) = frame;
    if *kind != expected {
        return Err(ChannelError::Protocol(format!("message {expected} was expected, {kind} came")));
    }
    serde_json::from_slice(payload).map_err(|e| ChannelError::Protocol(format!("message {kind} is unreadable: {e}")))
}

/// What rank 0 thinks of a member's hello.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It belongs here.
    Welcome,
    /// Another process has its rank: `what` names both. If that one is still there, this one is refused.
    Taken { what: String, advice: String },
    /// It does not belong here; the others need not care.
    Refuse { what: String, advice: String },
    /// It belongs here and is wrong: the run cannot start.
    Abort { what: String, advice: String },
}

/// Compares a member's hello with rank 0's; `seated` is who has its rank already. How often anybody was restarted does
/// not count: the supervisor of a host that was replaced begins at zero. Nobody of an earlier attempt can be mistaken
/// for one of this: what it was connected to is gone, and whoever still waits here has no state yet.
pub(super) fn judge(own: &Hello, hello: &Hello, seated: Option<&Hello>) -> Judgement {
    let (member, host) = (hello.name(), own.name());
    if hello.run_id != own.run_id {
        return Judgement::Refuse {
            what: format!("{member} belongs to run '{}', {host} to run '{}'", hello.run_id, own.run_id),
            advice: "give every process the same run id, and every run its own rendezvous port".to_owned(),
        };
    }
    if hello.world != own.world {
        return Judgement::Abort {
            what: format!("{member} expects {} processes, {host} expects {}", hello.world, own.world),
            advice: "start every process with the same world size".to_owned(),
        };
    }
    if hello.rank == 0 || hello.rank >= own.world {
        return Judgement::Abort {
            what: format!(
                "{member} came to {host}, but the members of {} processes are 1 to {}",
                own.world,
                own.world - 1
            ),
            advice: "give every process its own rank below the world size".to_owned(),
        };
    }
    if let Some(first) = seated {
        return Judgement::Taken {
            what: format!("rank {} came twice: first {}, then {member}", hello.rank, first.name()),
            advice: "start every rank once; check how the launcher numbers processes".to_owned(),
        };
    }
    let differences = differing_facts(own, hello);
    if !differences.is_empty() {
        return Judgement::Abort {
            what: format!("{member} and {host} are about to run different things: {}", differences.join("; ")),
            advice: "start every process with the same configuration, data and version".to_owned(),
        };
    }
    Judgement::Welcome
}

fn differing_facts(own: &Hello, hello: &Hello) -> Vec<String> {
    let value = |facts: &[(String, String)], key: &str| {
        facts.iter().find(|(k, _)| k == key).map_or("absent".to_owned(), |(_, v)| format!("'{v}'"))
    };
    let mut keys: Vec<&str> = own.facts.iter().chain(&hello.facts).map(|(key, _)| key.as_str()).collect();
    let mut known = std::collections::BTreeSet::new();
    keys.retain(|key| known.insert(*key));
    let mut differences: Vec<(&str, String)> = Vec::new();
    for key in keys {
        let (mine, theirs) = (value(&own.facts, key), value(&hello.facts, key));
        if mine != theirs {
            differences.push((key, format!("{key} is {theirs} on rank {} and {mine} on rank 0", hello.rank)));
        }
    }
    // The digest of everything differs whenever a part does; it is worth naming only when no part explains it.
    if differences.len() > 1 {
        differences.retain(|(key, _)| *key != "fingerprint");
    }
    differences.truncate(MAX_DIFFERENCES);
    differences.into_iter().map(|(_, text)| text).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn hello(rank: usize) -> Hello {
        let facts = [("plan", "ab12"), ("dataset", "cd34"), ("fingerprint", "ee")];
        Hello {
            run_id: "run".into(),
            rank,
            world: 4,
            host: format!("node{rank}"),
            pid: 100 + rank as u32,
            facts: facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            data_ip: None,
            data_port: 1,
        }
    }

    /// The words of a judgement on rank 1 after a change.
    fn words(change: impl Fn(&mut Hello), seated: Option<&Hello>) -> String {
        let mut member = hello(1);
        change(&mut member);
        format!("{:?}", judge(&hello(0), &member, seated))
    }

    #[test]
    fn equal_hellos_are_welcome_and_every_difference_is_named_with_both_values() {
        assert_eq!(judge(&hello(0), &hello(1), None), Judgement::Welcome);
        for (text, parts) in [
            (words(|h| h.run_id = "x".into(), None), ["Refuse", "'x'", "'run'"]),
            (words(|h| h.world = 5, None), ["Abort", "expects 5", "expects 4"]),
            (words(|h| h.rank = 4, None), ["Abort", "rank 4", "1 to 3"]),
            (words(|h| h.rank = 0, None), ["Abort", "rank 0", "1 to 3"]),
            (words(|h| h.pid = 7, Some(&hello(1))), ["Taken", "node1, pid 101", "node1, pid 7"]),
            (words(|h| h.facts[0].1 = "zz".into(), None), ["Abort", "plan is 'zz' on rank 1", "'ab12' on rank 0"]),
            (words(|h| h.facts[2].1 = "ff".into(), None), ["Abort", "fingerprint is 'ff'", "'ee'"]),
            (words(|h| drop(h.facts.remove(1)), None), ["Abort", "dataset is absent on rank 1", "'cd34'"]),
            (words(|h| h.facts.push(("new".into(), "1".into())), None), ["Abort", "new is '1'", "absent on rank 0"]),
        ] {
            assert!(parts.iter().all(|p| text.contains(p)), "{text}");
        }
    }

    #[test]
    fn a_fingerprint_is_named_only_when_nothing_else_explains_it() {
        let text = words(
            |h| {
                h.facts[0].1 = "zz".into();
                h.facts[2].1 = "ff".into();
            },
            None,
        );
        assert!(text.contains("plan") && !text.contains("fingerprint"), "{text}");
    }

    #[test]
    fn farewells_carry_the_same_words_to_everybody() {
        let refused = ClusterError::Refused { what: "w".into(), advice: "a".into() };
        assert_eq!(Farewell::of(&refused, &hello(2)).into_error().to_string(), refused.to_string());
        let stopped = ClusterError::Stopped("rank 1 was told to stop".into());
        let told = Farewell::of(&stopped, &hello(2)).into_error();
        assert!(matches!(&told, ClusterError::Absent { what, .. } if what == "rank 1 was told to stop"), "{told}");
        let local = ClusterError::Local { what: "cannot listen".into(), cause: "no".into(), advice: "a".into() };
        let text = Farewell::of(&local, &hello(2)).into_error().to_string();
        assert!(text.contains("rank 2 (host node2, pid 102) failed") && text.contains("cannot listen: no"), "{text}");
    }
}
