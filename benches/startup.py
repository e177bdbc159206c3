#!/usr/bin/env python3
"""What it costs to start: bytes of the binary for each feature set that is given, seconds until `--help` has been written, and
until a checkpoint of about 1 GB is loaded and verified, beside `cat` of the same files, in turn, with the files in memory and
(as root) not; writes the medians to benches/results/DATE-startup.md.
usage: startup.py [--bin default=target/release/jazari cuda=...] [--rounds 5]"""
import argparse, datetime, os, pathlib, platform, re, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--bin", nargs="+", default=[f"default={ROOT / 'target/release/jazari'}"], help="NAME=PATH, the first is timed")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
args = parser.parse_args()
binaries = {name: pathlib.Path(path).resolve() for name, path in (one.split("=", 1) for one in args.bin)}
jazari = next(iter(binaries.values()))


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def resume(command):
    """Seconds until a run says that it goes on, which it does once every byte is verified and in place."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = []
    for line in child.stderr:
        said.append(line)
        if line.startswith("resumed at step"):
            taken = time.perf_counter() - start
            child.kill()
            child.wait()
            return taken
    sys.exit("".join(said))


def forget():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("1")


starts = {what: [] for what in ("--help", "train --help", "--version")}
for _ in range(21):
    for what, taken in starts.items():
        taken.append(1000 * seconds([jazari, *what.split()]))

with tempfile.TemporaryDirectory(dir=ROOT) as folder:
    folder = pathlib.Path(folder)
    data = f"datasets=[{{path: {folder / 'data'}}}]"
    subprocess.run([jazari, "data", "prepare", ROOT / "configs/ci-tiny-data.yaml", "--set", f"output_dir={folder / 'data'}"],
                   cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sizes = ["model.hidden_size=768", "model.intermediate_size=2304", "model.num_hidden_layers=12",
             "model.num_attention_heads=12", "model.num_key_value_heads=4", "model.head_dim=64"]
    run = [*sizes, f"output_dir={folder / 'run'}", data, "max_steps=2", "save_steps=1", "eval_steps=1000", "micro_batch_size=1",
           "global_batch_size=1 seq", "warmup_steps=1", "expect={}", "eval.max_tokens_per_language=64"]
    command = [jazari, "train", ROOT / "configs/ci-tiny.yaml", *[part for value in run for part in ("--set", value)]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = folder / "run/checkpoints/step-00000002"
    files = sorted(checkpoint.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    loads = {"in memory": {"jazari": [], "cat": []}, "on disk": {"jazari": [], "cat": []}}
    for _ in range(args.rounds):
        for where, taken in loads.items():
            for who, times in taken.items():
                if where == "on disk":
                    try:
                        forget()
                    except OSError:
                        continue
                times.append(seconds(["cat", *files]) if who == "cat" else resume(command))

processor = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
lines = ["# What it costs to start", "", f"{processor[1] if processor else platform.processor()}, {os.cpu_count()} threads; commit {commit}; "
         f"`benches/startup.py`, medians of {args.rounds} rounds (21 for the first table).", "",
         "| command | ms | most |", "|---|---|---|"]
lines += [f"| `jazari {what}` | {statistics.median(taken):.1f} | {max(taken):.1f} |" for what, taken in starts.items()]
lines += ["", f"A checkpoint of {size / 1e9:.2f} GB, from the start of the process until it is verified (BLAKE3 of every file, digest of the "
          "state) and loaded; the processor's peak is measured in that time too:", "", "| files | `jazari train` | GB/s | `cat` | GB/s |", "|---|---|---|---|---|"]
for where, taken in loads.items():
    if taken["jazari"]:
        ours, cat = statistics.median(taken["jazari"]), statistics.median(taken["cat"])
        lines.append(f"| {where} | {ours:.2f} s | {size / 1e9 / ours:.2f} | {cat:.2f} s | {size / 1e9 / cat:.2f} |")
lines += ["", "| binary | bytes |", "|---|---|"]
lines += [f"| {name} | {path.stat().st_size:,} |" for name, path in binaries.items()]
text = "\n".join(lines) + "\n"
print(text)
out = args.out / f"{datetime.date.today()}-startup.md"
out.write_text(text)
print(f"written to {out}")
