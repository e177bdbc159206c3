//! Owns the tests of finding a place: every launcher's variables, and every way to get them wrong.
#![allow(clippy::unwrap_used)]

use super::*;

fn find(flags: &PlaceFlags, variables: &str) -> Result<Place, PlaceError> {
    let pairs: Vec<(String, String)> = variables
        .split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Place::find(flags, &|name| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
}

/// Place as `rank/world local_rank/local_world rendezvous run_id restart`, or the error.
fn check(variables: &str, expect: &str) {
    let shown = match find(&PlaceFlags::default(), variables) {
        Ok(p) => format!(
            "{}/{} {}/{} {} {} {} {:?}",
            p.rank, p.world, p.local_rank, p.local_world, p.rendezvous, p.run_id, p.restart, p.source
        ),
        Err(error) => error.to_string(),
    };
    assert_eq!(shown, expect, "{variables}");
}

const TORCH: &str = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=node1 MASTER_PORT=29500";
const SLURM: &str = "SLURM_JOB_ID=77 SLURM_STEP_ID=0 SLURM_PROCID=5 SLURM_NTASKS=7 SLURM_LOCALID=1 SLURM_NODEID=1 \
                     SLURM_STEP_TASKS_PER_NODE=4,3 SLURM_STEP_NODELIST=n[03-04] SLURM_JOB_NODELIST=n[01-04]";
const OMPI: &str = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 \
                    OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_NAMESPACE=123";

#[test]
fn no_launcher_means_one_process() {
    check("", "0/1 0/1   0 Single");
    check("PATH=/bin RANK= WORLD_SIZE=1", "0/1 0/1   0 Single");
    assert_eq!(Place::single().to_string(), "one process (no launcher)");
}

#[test]
fn own_variables_win_over_every_launcher() {
    let own = "JAZARI_RANK=2 JAZARI_WORLD_SIZE=4 JAZARI_LOCAL_RANK=0 JAZARI_LOCAL_WORLD_SIZE=2 \
               JAZARI_RENDEZVOUS=127.0.0.1:4000 JAZARI_RUN_ID=r JAZARI_RESTART=3";
    check(own, "2/4 0/2 127.0.0.1:4000 r 3 Own");
    check(&format!("{TORCH} {SLURM} {OMPI} {own}"), "2/4 0/2 127.0.0.1:4000 r 3 Own");
    let flags = PlaceFlags { rank: Some(1), world: Some(2), rendezvous: Some("h:1".into()), run_id: Some("x".into()) };
    let place = find(&flags, "JAZARI_WORLD_SIZE=9 JAZARI_RANK=7").unwrap();
    assert_eq!((place.rank, place.world, place.rendezvous.as_str(), place.run_id.as_str()), (1, 2, "h:1", "x"));
    assert_eq!(
        place.to_string(),
        "rank 1 of 2, 1 of 1 on this host, rank 0 at h:1, run x; from jazari's own flags or JAZARI_RANK"
    );
}

#[test]
fn half_set_own_variables_are_refused() {
    check(
        "JAZARI_RANK=1",
        "JAZARI_RANK=1 is set, but JAZARI_WORLD_SIZE is not; say how many processes there are, or leave both out to \
         train with one process",
    );
    let alone = "; give each process its rank (JAZARI_RANK), start them with `jazari launch`, or unset it";
    check("JAZARI_WORLD_SIZE=2", &format!("JAZARI_WORLD_SIZE=2 is set, but a rank is not{alone}"));
    check("WORLD_SIZE=2", &format!("WORLD_SIZE=2 is set, but a rank is not{alone}"));
    check("JAZARI_LOCAL_RANK=0", &format!("JAZARI_LOCAL_RANK=0 is set, but JAZARI_RANK is not{alone}"));
    check(
        "JAZARI_RANK=1 JAZARI_WORLD_SIZE=2 MASTER_ADDR=elsewhere MASTER_PORT=1",
        "a place among several processes (from jazari's own flags or JAZARI_RANK) is set, but JAZARI_RENDEZVOUS is \
         not; set it to host:port of rank 0, or start the run with `jazari launch`",
    );
    let flags = PlaceFlags { world: Some(2), ..PlaceFlags::default() };
    assert!(find(&flags, "").unwrap_err().to_string().starts_with("--world-size 2 is set, but a rank is not"));
}

#[test]
fn torchrun_gives_its_port_or_the_one_after() {
    check(TORCH, "3/4 1/2 node1:29500 unnamed 0 Torchrun");
    check(
        &format!("{TORCH} TORCHELASTIC_USE_AGENT_STORE=True TORCHELASTIC_RESTART_COUNT=2 TORCHELASTIC_RUN_ID=job"),
        "3/4 1/2 node1:29503 torchrun-job 2 Torchrun",
    );
    check(
        &format!("{TORCH} TORCHELASTIC_USE_AGENT_STORE=True JAZARI_RENDEZVOUS=node1:5000"),
        "3/4 1/2 node1:5000 unnamed 0 Torchrun",
    );
    check("RANK=0 WORLD_SIZE=1 MASTER_ADDR=a MASTER_PORT=1", "0/1 0/1   0 Torchrun");
    check("RANK=1 WORLD_SIZE=2 MASTER_ADDR=fd00::1 MASTER_PORT=9", "1/2 0/1 [fd00::1]:9 unnamed 0 Torchrun");
    check("RANK=1", "RANK=1 is set, but WORLD_SIZE is not; set both, or unset RANK");
    check(
        "RANK=1 WORLD_SIZE=2 MASTER_ADDR=a",
        "MASTER_ADDR=a is set, but MASTER_PORT is not; set both, or JAZARI_RENDEZVOUS",
    );
    check(
        "RANK=1 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=65535 TORCHELASTIC_USE_AGENT_STORE=True",
        "MASTER_PORT=65535: the processes would meet at port 65536, which does not exist; choose a lower --master-port \
         (or --rdzv-endpoint port) for torchrun, or set JAZARI_RENDEZVOUS",
    );
}

#[test]
fn numbers_must_be_numbers_and_agree() {
    check("RANK=one WORLD_SIZE=2", "RANK=one: this is not a whole number; correct it or unset it");
    check("RANK=-1 WORLD_SIZE=2", "RANK=-1: this is not a whole number; correct it or unset it");
    check(
        "RANK=2 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1",
        "RANK=2 contradicts WORLD_SIZE=2; ranks count from 0 and stay below the number of processes: correct the one \
         that is wrong",
    );
    check(
        "RANK=0 WORLD_SIZE=0 MASTER_ADDR=a MASTER_PORT=1",
        "WORLD_SIZE=0: a run has 1 to 65536 processes; correct it",
    );
    check(
        &format!("{OMPI} JAZARI_WORLD_SIZE=4"),
        "JAZARI_WORLD_SIZE=4 contradicts OMPI_COMM_WORLD_SIZE=2; unset it, or start as many processes as it says",
    );
    check(
        "RANK=0 WORLD_SIZE=2 LOCAL_WORLD_SIZE=4 MASTER_ADDR=a MASTER_PORT=1",
        "LOCAL_WORLD_SIZE=4 contradicts WORLD_SIZE=2; one host cannot hold more processes than there are",
    );
}

#[test]
fn mpi_on_one_host_needs_no_address() {
    let place = find(&PlaceFlags::default(), OMPI).unwrap();
    assert_eq!((place.rank, place.world, place.local_rank, place.source), (1, 2, 1, Source::OpenMpi));
    let port: u16 = place.rendezvous.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    assert!((20_000..30_000).contains(&port));
    assert_eq!(place.run_id, "mpirun-123");
    let other = find(&PlaceFlags::default(), &OMPI.replace("=123", "=124")).unwrap();
    assert_ne!(place.rendezvous, other.rendezvous, "two runs on a host meet at two ports");
    let two_hosts = OMPI.replace("LOCAL_SIZE=2", "LOCAL_SIZE=1").replace("LOCAL_RANK=1", "LOCAL_RANK=0");
    check(
        &two_hosts,
        "a place among several processes (from Open MPI (OMPI_COMM_WORLD_RANK)) is set, but JAZARI_RENDEZVOUS is not; \
         pass the address of rank 0: mpirun -x JAZARI_RENDEZVOUS=host:port",
    );
    check(&format!("{two_hosts} MASTER_ADDR=n1 MASTER_PORT=7000"), "1/2 0/1 n1:7000 mpirun-123 0 OpenMpi");
    let pmi = find(&PlaceFlags::default(), "PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2").unwrap();
    assert_eq!((pmi.rank, pmi.local_world, pmi.source), (1, 2, Source::Pmi));
    assert!(pmi.rendezvous.starts_with("127.0.0.1:"));
}

#[test]
fn slurm_counts_only_inside_a_step() {
    let place = find(&PlaceFlags::default(), SLURM).unwrap();
    assert_eq!((place.rank, place.world, place.local_rank, place.local_world), (5, 7, 1, 3));
    assert!(place.rendezvous.starts_with("n03:"), "the step's first host, not the job's: {}", place.rendezvous);
    assert_eq!((place.run_id.as_str(), place.source), ("slurm-77.0", Source::Slurm));
    check(&format!("{SLURM} MASTER_PORT=7001"), "5/7 1/3 n03:7001 slurm-77.0 0 Slurm");
    check(&format!("{SLURM} MASTER_ADDR=n03.ib MASTER_PORT=7001"), "5/7 1/3 n03.ib:7001 slurm-77.0 0 Slurm");
    for shell in ["SLURM_STEP_ID=4294967291", "SLURM_STEP_ID=", "SLURM_STEP_ID=batch"] {
        check(&SLURM.replace("SLURM_STEP_ID=0", shell), "0/1 0/1   0 Single");
    }
    check(&format!("{SLURM} SLURM_STEP_NUM_TASKS=1"), "0/1 0/1   0 Single");
    let one_host = find(&PlaceFlags::default(), &SLURM.replace("n[03-04]", "n03")).unwrap();
    assert!(one_host.rendezvous.starts_with("127.0.0.1:"));
    let restarted = find(&PlaceFlags::default(), &format!("{SLURM} SLURM_RESTART_COUNT=2")).unwrap();
    assert_eq!(restarted.restart, 2);
}

#[test]
fn damaged_slurm_variables_are_refused() {
    check(
        &SLURM.replace("n[03-04]", "n[03-"),
        "SLURM_STEP_NODELIST=n[03-: a bracket is not closed; start the processes with srun, or set JAZARI_RENDEZVOUS \
         to host:port of rank 0",
    );
    check(
        &SLURM.replace("SLURM_LOCALID=1", ""),
        "SLURM_PROCID=5 is set, but SLURM_LOCALID is not; set both, or unset SLURM_PROCID",
    );
    check(
        &SLURM.replace("4,3", "4(x"),
        "SLURM_STEP_TASKS_PER_NODE=4(x: `4(x` is not a count like 4 or 4(x2); start the processes with srun",
    );
}

#[test]
fn pods_of_an_indexed_job_need_the_number_of_pods() {
    let pod = "JOB_COMPLETION_INDEX=3";
    check(
        pod,
        "JOB_COMPLETION_INDEX=3 is set, but JAZARI_WORLD_SIZE is not; set it to the number of pods of the job, or to 1 \
         when every pod trains for itself",
    );
    check(&format!("{pod} JAZARI_WORLD_SIZE=1"), "0/1 0/1   0 Single");
    check(
        &format!("{pod} JAZARI_WORLD_SIZE=4 MASTER_ADDR=run-train-0-0.run MASTER_PORT=7000 JAZARI_RUN_ID=a"),
        "3/4 0/1 run-train-0-0.run:7000 a 0 Kubernetes",
    );
    check(
        &format!("{pod} JAZARI_WORLD_SIZE=4"),
        "a place among several processes (from Kubernetes (JOB_COMPLETION_INDEX)) is set, but JAZARI_RENDEZVOUS is \
         not; set it to the host name of the pod with index 0 and a port",
    );
}

#[test]
fn addresses_are_checked() {
    let at = |address: &str| format!("JAZARI_RANK=1 JAZARI_WORLD_SIZE=2 JAZARI_RENDEZVOUS={address}");
    let advice = "; write host:port, for example node001:23456 or [fd00::1]:23456";
    for (address, why) in [
        ("node1", "there is no port"),
        (":80", "there is no host"),
        ("node1:0", "the port is not a number between 1 and 65535"),
        ("node1:http", "the port is not a number between 1 and 65535"),
        ("fd00::1:80", "an IPv6 address stands in brackets"),
    ] {
        check(&at(address), &format!("JAZARI_RENDEZVOUS={address}: {why}{advice}"));
    }
    check(&at("[fd00::1]:80"), "1/2 0/1 [fd00::1]:80 unnamed 0 Own");
}
