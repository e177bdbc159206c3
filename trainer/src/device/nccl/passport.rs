//! Owns what ranks tell each other before they touch NCCL, and whether that fits together; never touches a device.
//!
//! A rank that finds no library, or two that hold the same GPU, would otherwise show on the *others*: as a hang in
//! NCCL's start until its time-out.

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterError;

/// The first NCCL that lets several ranks share a GPU: 2.30.0, as it writes it.
const SHARING: i32 = 2_30_00;
/// The oldest NCCL whose start-up structure this program can fill in: 2.18.0.
const OLDEST: i32 = 2_18_00;
/// The variable that makes NCCL share GPUs.
pub(super) const SHARING_VARIABLE: &str = "NCCL_MULTI_RANK_GPU_ENABLE";

/// What one rank has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// NCCL's version as it writes it: 2.28.9 is 22809.
    pub(super) version: i32,
    /// The identity of its GPU, the same in every process that uses it.
    pub(super) gpu: String,
    /// The name of its GPU in a config.
    pub(super) device: String,
    /// Whether [`SHARING_VARIABLE`] is 1.
    pub(super) may_share: bool,
}

/// What one rank says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Passport {
    rank: usize,
    host: String,
    facts: Result<Facts, String>,
}

impl Passport {
    pub(super) fn of(rank: usize, host: String, facts: &Result<Facts, String>) -> Self {
        Self { rank, host, facts: facts.clone() }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// `2.28.9` for 22809.
pub(super) fn version_text(version: i32) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// Whether all ranks can make one communicator. Every rank judges the same passports, so all come to the same end.
///
/// # Errors
/// [`ClusterError::Refused`] names the ranks.
pub(super) fn judge(all: &[Vec<u8>]) -> Result<(), ClusterError> {
    let passports: Result<Vec<Passport>, _> = all.iter().map(|bytes| serde_json::from_slice(bytes)).collect();
    let passports = passports.map_err(|error| ClusterError::Refused {
        what: format!("what a rank says of its GPU cannot be read ({error})"),
        advice: "start the same version of jazari on every rank".into(),
    })?;
    let mut ranks = Vec::new();
    for Passport { rank, host, facts } in &passports {
        match facts {
            Ok(facts) => ranks.push((*rank, host, facts)),
            Err(why) => {
                return Err(ClusterError::Refused {
                    what: format!("rank {rank} (host {host}) cannot use NCCL: {why}"),
                    advice: "or let gradients go through host memory: `cluster.engine: tcp`".into(),
                });
            }
        }
    }
    same_version(&ranks)?;
    one_gpu_each(&ranks)
}

type Rank<'a> = (usize, &'a String, &'a Facts);

fn same_version(ranks: &[Rank<'_>]) -> Result<(), ClusterError> {
    let Some((first, host, facts)) = ranks.first() else { return Ok(()) };
    let text = version_text(facts.version);
    if let Some((rank, other_host, other)) = ranks.iter().find(|(_, _, other)| other.version != facts.version) {
        return Err(ClusterError::Refused {
            what: format!(
                "NCCL is {text} on rank {first} (host {host}) and {} on rank {rank} (host {other_host})",
                version_text(other.version)
            ),
            advice: "install one version on all hosts, or point JAZARI_NCCL_LIBRARY at the same file".into(),
        });
    }
    if facts.version < OLDEST {
        return Err(ClusterError::Refused {
            what: format!("NCCL {text} is too old: {} is the first that will do", version_text(OLDEST)),
            advice: "install a newer one (pip: `nvidia-nccl-cu12` or `nvidia-nccl-cu13`)".into(),
        });
    }
    Ok(())
}

fn one_gpu_each(ranks: &[Rank<'_>]) -> Result<(), ClusterError> {
    for (at, (rank, host, facts)) in ranks.iter().enumerate() {
        let sharing = ranks.iter().skip(at + 1).find(|(_, _, other)| other.gpu == facts.gpu);
        let Some((other, other_host, theirs)) = sharing else { continue };
        if facts.version >= SHARING && facts.may_share && theirs.may_share {
            continue;
        }
        let rule = if facts.version < SHARING {
            format!("NCCL {} refuses that ({} and newer can be told to)", version_text(facts.version), "2.30")
        } else {
            format!("NCCL refuses that unless {SHARING_VARIABLE}=1 is set for all of them")
        };
        return Err(ClusterError::Refused {
            what: format!(
                "rank {rank} (host {host}, {}) and rank {other} (host {other_host}, {}) use the same GPU; {rule}",
                facts.device, theirs.device
            ),
            advice: "start one process a GPU: `--nproc` must not be larger than the number of GPUs, and every process \
                     must see its own (`device: auto`, or CUDA_VISIBLE_DEVICES)"
                .into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(version: i32, gpu: &str, may_share: bool) -> Facts {
        Facts { version, gpu: gpu.into(), device: "cuda:0".into(), may_share }
    }

    fn judged(ranks: Vec<Result<Facts, String>>) -> Result<(), String> {
        let passports = ranks.into_iter().enumerate();
        let passports = passports.map(|(rank, facts)| Passport::of(rank, format!("node{rank}"), &facts).to_bytes());
        judge(&passports.collect::<Vec<_>>()).map_err(|error| error.to_string())
    }

    #[test]
    fn versions_are_written_as_nccl_writes_them() {
        assert_eq!([22_809, 23_000, 21_805].map(version_text), ["2.28.9", "2.30.0", "2.18.5"]);
    }

    #[test]
    fn ranks_with_a_gpu_each_pass() {
        assert_eq!(judged(vec![Ok(facts(22_809, "a", false)), Ok(facts(22_809, "b", false))]), Ok(()));
        assert_eq!(judged(vec![Ok(facts(22_809, "a", false))]), Ok(()));
    }

    #[test]
    fn the_rank_without_a_library_is_named_on_all() {
        let why = "NCCL was not found; install it".to_owned();
        let message = judged(vec![Ok(facts(22_809, "a", false)), Err(why)]).unwrap_err();
        assert!(message.starts_with("rank 1 (host node1) cannot use NCCL: NCCL was not found"), "{message}");
        assert!(message.ends_with("`cluster.engine: tcp`"), "{message}");
    }

    #[test]
    fn versions_must_agree_and_be_new_enough() {
        let message = judged(vec![Ok(facts(22_809, "a", false)), Ok(facts(22_705, "b", false))]).unwrap_err();
        assert!(message.contains("2.28.9 on rank 0 (host node0) and 2.27.5 on rank 1 (host node1)"), "{message}");
        let message = judged(vec![Ok(facts(21_000, "a", false))]).unwrap_err();
        assert!(message.contains("NCCL 2.10.0 is too old: 2.18.0"), "{message}");
    }

    #[test]
    fn a_shared_gpu_names_both_ranks_and_the_way_out() {
        let same = |version, share| vec![Ok(facts(version, "a", share)), Ok(facts(version, "a", share))];
        let message = judged(same(22_809, true)).unwrap_err();
        assert!(message.starts_with("rank 0 (host node0, cuda:0) and rank 1 (host node1, cuda:0)"), "{message}");
        assert!(message.contains("NCCL 2.28.9 refuses that (2.30 and newer can be told to)"), "{message}");
        assert!(message.contains("one process a GPU"), "{message}");
        let message = judged(same(23_000, false)).unwrap_err();
        assert!(message.contains("unless NCCL_MULTI_RANK_GPU_ENABLE=1 is set"), "{message}");
        assert_eq!(judged(same(23_000, true)), Ok(()));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(judge(&[b"?".to_vec()]).unwrap_err().to_string().contains("cannot be read"));
    }
}
