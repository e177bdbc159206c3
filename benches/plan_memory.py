#!/usr/bin/env python3
"""Compares the memory that `jazari plan` names with the peak resident memory of three training steps with an evaluation and a
save, for several sizes of model, and prints a table.
usage: plan_memory.py --config RUN.yaml [--bin target/release/jazari]
RUN.yaml is a run on the CPU whose data set is prepared, such as configs/moroccan-3m-cpu.yaml."""
import argparse, datetime, json, os, pathlib, platform, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Size of the model, row length, rows of the one micro-batch of a step.
CASES = [("3m", 256, 8), ("3m", 2048, 1), ("3m", 256, 32), ("30m", 256, 8), ("30m", 512, 4), ("30m", 2048, 1), ("110m", 512, 4)]

parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--config", required=True, type=pathlib.Path)
parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release/jazari")
args = parser.parse_args()

def run(command):
    """Standard output and peak resident memory in MiB of a command."""
    pipe = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = pipe.stdout.read(), pipe.stderr.read()
    _, status, usage = os.wait4(pipe.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))}: {err.decode()[-500:]}")
    return out.decode(), usage.ru_maxrss / 1024

cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
print(f"date: {datetime.date.today()}, machine: {cpu}, {os.cpu_count()} threads, commit: {commit or 'none'}\n")
print("| model | sequence | rows | checkpointing | measured MiB | planned MiB | difference |\n|---|---|---|---|---|---|---|")
for size, seq, rows in CASES:
    for checkpointing in ("none", "selective", "block"):
        with tempfile.TemporaryDirectory() as out:
            values = {"model.size": size, "sequence_len": seq, "micro_batch_size": rows, "global_batch_size": f"{rows} seq", "max_steps": 3, "warmup_steps": 1, "save_steps": 3, "eval_steps": 3, "gradient_checkpointing": checkpointing, "expect": "{}", "output_dir": f"{out}/run"}
            sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
            plan = json.loads(run([args.bin, "plan", args.config, "--json", *sets])[0])
            memory = next(entry for entry in plan["estimate"]["memory"] if entry["device"] == "cpu")
            planned = memory["total"] / 2**20
            measured = run([args.bin, "train", args.config, *sets])[1]
            print(f"| {size} | {seq} | {rows} | {checkpointing} | {measured:.0f} | {planned:.0f} | {100 * (planned / measured - 1):+.0f} % |", flush=True)
