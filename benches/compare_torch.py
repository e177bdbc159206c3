#!/usr/bin/env python3
"""Trains the same models with bench-train and with a PyTorch peer, eager and compiled, in turn (A B C A B C) and
writes the medians to benches/results/DATE-cpu-train.{json,md}. Shapes: (a) 8.6 M parameters, (b) 40 M, (c) 33 M in rows of 2,048
tokens; float32, 2,048 tokens a step.
usage: compare_torch.py --peer bench_torch.py [--python PYTHON_WITH_TORCH] [--bin target/release/bench-train]
Without --python a virtual environment is made in .venv-torch; TORCH_INDEX_URL names an index of CPU builds (0.2 GB),
without it pip takes its default build of PyTorch (some GB)."""
import argparse, datetime, json, os, pathlib, platform, statistics, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = {
    "a": "--layers 6 --d-model 256 --heads 8 --kv-heads 4 --ffn 704 --vocab 8192 --batch 8 --seq 256",
    "b": "--layers 8 --d-model 512 --heads 8 --kv-heads 4 --ffn 1408 --vocab 16384 --batch 4 --seq 512",
    "c": "--layers 8 --d-model 512 --heads 8 --kv-heads 4 --ffn 1408 --vocab 16384 --batch 1 --seq 2048 --tie",
}
FIELDS = ("tokens_per_s", "best_tokens_per_s", "tokens_per_cpu_s", "peak_mem_gib", "mfu_causal", "loss_last")

parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--peer", required=True, type=pathlib.Path)
parser.add_argument("--python", type=pathlib.Path)
parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release/bench-train")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
args = parser.parse_args()

python = args.python or ROOT / ".venv-torch/bin/python"
if not python.exists():
    subprocess.run([sys.executable, "-m", "venv", ROOT / ".venv-torch"], check=True)
    index = ["--index-url", os.environ["TORCH_INDEX_URL"]] if "TORCH_INDEX_URL" in os.environ else []
    subprocess.run([python, "-m", "pip", "install", "-q", "torch", "numpy", *index], check=True)

def run(command, shape):
    with tempfile.NamedTemporaryFile("r") as file:
        options = [*SHAPES[shape].split(), "--steps", str(args.steps), "--threads", str(args.threads), "--device", "cpu", "--dtype", "fp32"]
        subprocess.run([*command, *options, "--json", file.name], check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read().splitlines()[-1])

commands = {"PyTorch": [python, args.peer, "--compile", "none"], "PyTorch, compiled": [python, args.peer, "--compile", "default"], "Jazari": [args.bin]}
PEERS = [name for name in commands if name != "Jazari"]
runs = []
for shape in SHAPES:
    for turn in range(args.rounds):
        for name, command in commands.items():
            runs.append({"shape": shape, "turn": turn, "name": name, **run(command, shape)})
            print(shape, turn, name, runs[-1]["tokens_per_s"], "tokens/s", runs[-1]["peak_mem_gib"], "GiB", file=sys.stderr)

cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
head = {"date": str(datetime.date.today()), "machine": f"{cpu}, {args.threads} threads", "commit": commit or "none", "torch": next(r["torch"] for r in runs if "torch" in r), "rounds": args.rounds, "steps": args.steps}
median = lambda shape, name, field: statistics.median(r[field] for r in runs if (r["shape"], r["name"]) == (shape, name))
table = [{"shape": s, "name": n, **{f: median(s, n, f) for f in FIELDS}} for s in SHAPES for n in commands]
ratio = {s: {p: {f: round(median(s, "Jazari", f) / median(s, p, f), 3) for f in FIELDS[:4]} for p in PEERS} for s in SHAPES}
args.out.mkdir(parents=True, exist_ok=True)
target = args.out / f"{head['date']}-cpu-train"
target.with_suffix(".json").write_text(json.dumps({**head, "medians": table, "ratios": ratio, "runs": runs}, indent=1) + "\n")
rows = [f"| {r['shape']} | {r['name']} | " + " | ".join(str(r[f]) for f in FIELDS) + " |" for r in table]
rows += [f"| {s} | Jazari ÷ {p} | " + " | ".join(str(ratio[s][p].get(f, "")) for f in FIELDS) + " |" for s in SHAPES for p in PEERS]
text = [f"# Training on the CPU beside PyTorch, {head['date']}", "", ", ".join(f"{k}: {v}" for k, v in head.items()) + "; medians; float32.", "", "Shapes: " + "; ".join(f"({s}) `{o}`" for s, o in SHAPES.items()) + ".", "", "| shape | | " + " | ".join(FIELDS) + " |", "|---" * (len(FIELDS) + 2) + "|", *rows]
target.with_suffix(".md").write_text("\n".join(text) + "\n")
print("\n".join(rows))
