#!/usr/bin/env python3
"""Times all-reduces of float32 vectors between processes of this host in turn (A B A B): Jazari's tcp engine (exact and
fast), its mpi engine where the program was built with `--features trainer/mpi`, PyTorch's gloo, Open MPI over shared memory (its default) and over TCP; writes the medians over all rounds to
benches/results/DATE-collectives.{json,md}. A repetition, everywhere: refill the vector, barrier, then the clock of rank
0 runs for one all-reduce in place. What is not installed is printed as SKIPPED.
usage: compare_collectives.py [--python PYTHON_WITH_TORCH] [--bin target/release/bench-collective] [--world 2]"""
import argparse, base64, datetime, json, os, pathlib, platform, shutil, socket, statistics, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20

parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--python", type=pathlib.Path, default=ROOT / ".venv-torch/bin/python")
parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release/bench-collective")
parser.add_argument("--world", type=int, default=2)
parser.add_argument("--sizes", type=int, nargs="+", default=[1, 16, 64], help="MiB")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--reps", type=int, default=20, help="timed repetitions a size and round")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
args = parser.parse_args()
if not args.bin.exists():
    parser.error(f"{args.bin} does not exist: cargo build --release --workspace --bins --features trainer/mpi")

GLOO = """
import datetime, json, os, sys, time, torch, torch.distributed as dist
reps, sizes = int(sys.argv[1]), [int(s) for s in sys.argv[2:]]
torch.set_num_threads(1)
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
for size in sizes:
    v, seconds = torch.empty(size // 4), []
    for rep in range(3 + reps):
        v.fill_(0.125)
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(v)
        if rep >= 3: seconds.append(time.perf_counter() - start)
    assert bool((v == 0.125 * dist.get_world_size()).all())
    if dist.get_rank() == 0: print(json.dumps({"bytes": size, "seconds": seconds, "version": torch.__version__}), flush=True)
dist.destroy_process_group()
"""

MPI = r"""
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  int rank, world, reps = atoi(argv[1]);
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world);
  for (int arg = 2; arg < argc; arg++) {
    long bytes = atol(argv[arg]), count = bytes / 4;
    float *v = malloc(bytes);
    if (rank == 0) printf("{\"bytes\": %ld, \"seconds\": [", bytes);
    for (int rep = 0; rep < 3 + reps; rep++) {
      for (long i = 0; i < count; i++) v[i] = 0.125f;
      MPI_Barrier(MPI_COMM_WORLD);
      double start = MPI_Wtime();
      MPI_Allreduce(MPI_IN_PLACE, v, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      double seconds = MPI_Wtime() - start;
      if (rank == 0 && rep >= 3) printf("%s%.9f", rep > 3 ? ", " : "", seconds);
    }
    for (long i = 0; i < count; i++) if (v[i] != 0.125f * world) MPI_Abort(MPI_COMM_WORLD, 1);
    if (rank == 0) { printf("]}\n"); fflush(stdout); }
    free(v);
  }
  return MPI_Finalize();
}
"""

work = pathlib.Path(tempfile.mkdtemp())
sizes = [str(size * MIB) for size in args.sizes]
counts = [str(args.reps), *sizes]

mpirun = ["mpirun", "-n", str(args.world), "--oversubscribe", "--allow-run-as-root"]

def ours(engine, order):
    options = ["--world", str(args.world), "--bytes", ",".join(sizes), "--reps", str(args.reps), "--order", order, "--engine", engine]
    command = [*(mpirun if engine == "mpi" else []), args.bin, *options]
    env = {**os.environ, **({"JAZARI_TOKEN_FILE": str(work / "token")} if engine == "mpi" else {})}
    return lambda: subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

def gloo():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(args.world), "GLOO_SOCKET_IFNAME": "lo"}
    start = lambda rank: subprocess.Popen([args.python, "-c", GLOO, *counts], env={**env, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
    ranks = [start(rank) for rank in range(args.world)]
    outputs = [rank.communicate()[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "gloo failed"
    return outputs[0]

def mpi(*options):
    command = [*mpirun, *options, work / "all_reduce", *counts]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

contenders = {"Jazari, exact": ours("tcp", "exact"), "Jazari, fast": ours("tcp", "fast")}
if "mpi" in subprocess.run([args.bin, "--engines"], check=True, capture_output=True, text=True).stdout.split() and shutil.which("mpirun"):
    with open(os.open(work / "token", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as token:
        token.write(base64.b64encode(os.urandom(32)))
    contenders |= {"Jazari over MPI, exact": ours("mpi", "exact"), "Jazari over MPI, fast": ours("mpi", "fast")}
else:
    print(f"SKIPPED: {args.bin} was built without the feature `mpi`, or there is no mpirun: our engine over MPI was not timed", file=sys.stderr)
own = list(contenders)
versions = {}
if args.python.exists():
    contenders["PyTorch gloo"] = gloo
    versions["torch"] = subprocess.run([args.python, "-c", "import torch; print(torch.__version__)"], check=True, capture_output=True, text=True).stdout.strip()
else:
    print(f"SKIPPED: {args.python} does not exist, PyTorch's gloo was not timed", file=sys.stderr)
if shutil.which("mpicc") and shutil.which("mpirun"):
    (work / "all_reduce.c").write_text(MPI)
    subprocess.run(["mpicc", "-O2", "-o", work / "all_reduce", work / "all_reduce.c"], check=True)
    contenders |= {"Open MPI": mpi(), "Open MPI, TCP": mpi("--mca", "btl", "self,tcp", "--mca", "pml", "ob1")}
    versions["mpi"] = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
else:
    print("SKIPPED: there is no mpicc and mpirun, Open MPI was not timed", file=sys.stderr)

runs = []
for turn in range(args.rounds):
    for name, contender in contenders.items():
        for line in map(json.loads, contender().splitlines()):
            seconds = statistics.median(line["seconds"]) if "seconds" in line else line["median_s"]
            best = min(line["seconds"]) if "seconds" in line else line["best_s"]
            runs.append({"turn": turn, "name": name, "bytes": line["bytes"], "median_s": seconds, "best_s": best})
            print(turn, name, line["bytes"] // MIB, "MiB", round(line["bytes"] / seconds / 1e9, 3), "GB/s", file=sys.stderr)
shutil.rmtree(work)

cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
head = {"date": str(datetime.date.today()), "machine": f"{cpu}, {os.cpu_count()} threads", "commit": commit or "none", **versions, "processes": args.world, "rounds": args.rounds, "repetitions": args.reps}
of = lambda name, size, field: [run[field] for run in runs if (run["name"], run["bytes"]) == (name, size * MIB)]
table = [{"name": n, "mib": s, "median_s": (m := statistics.median(of(n, s, "median_s"))), "best_s": min(of(n, s, "best_s")), "gb_per_s": round(s * MIB / m / 1e9, 3)} for n in contenders for s in args.sizes]
speed = {(row["name"], row["mib"]): row["gb_per_s"] for row in table}
args.out.mkdir(parents=True, exist_ok=True)
target = args.out / f"{head['date']}-collectives"
target.with_suffix(".json").write_text(json.dumps({**head, "medians": table, "runs": runs}, indent=1) + "\n")
rows = [f"| {n} | " + " | ".join(f"{speed[n, s]:.2f}" for s in args.sizes) + " |" for n in contenders]
rows += [f"| {o} ÷ {n} | " + " | ".join(f"{speed[o, s] / speed[n, s]:.2f}" for s in args.sizes) + " |" for o in own if "exact" in o for n in contenders if n not in own]
text = [f"# All-reduce between processes of one host, {head['date']}", "", ", ".join(f"{k}: {v}" for k, v in head.items()) + ".", "", "Bytes of the vector ÷ median seconds of one all-reduce of float32 in place, GB/s; medians over the rounds, which took turns.", "", "| | " + " | ".join(f"{s} MiB" for s in args.sizes) + " |", "|---" * (len(args.sizes) + 1) + "|", *rows]
target.with_suffix(".md").write_text("\n".join(text) + "\n")
print("\n".join(rows))
