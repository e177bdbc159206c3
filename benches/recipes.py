#!/usr/bin/env python3
"""What each recipe in configs/ costs on this machine: time, peak memory, tokens per second, energy where it is counted. Recipes that
would take long are run for some steps, and their whole time is the number of steps times the median step (marked with ~).
Recipes for GPUs are not run. Writes benches/results/DATE-recipes.md; docs/guide/recipes.md takes its figures from there.
usage: recipes.py --corpora FOLDER [--bin target/release/jazari] [--steps 12]"""
import argparse, datetime, json, os, pathlib, platform, re, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--corpora", type=pathlib.Path, required=True, help="a folder a source with data.jsonl, for moroccan-data.yaml")
parser.add_argument("--data", type=pathlib.Path, help="what moroccan-data.yaml made of them before: not prepared again, not timed")
parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release/jazari")
parser.add_argument("--steps", type=int, default=12, help="steps of a recipe that would take long")
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
args = parser.parse_args()
jazari = args.bin.resolve()
# In the order in which one needs what another made. Steps: None is the whole run.
RECIPES = [
    ("quickstart-data.yaml", "data", None), ("quickstart.yaml", "train", None),
    ("ci-tiny-data.yaml", "data", None), ("ci-tiny.yaml", "train", None), ("ci-sft.yaml", "train", None), ("ci-dpo.yaml", "train", None),
    ("moroccan-data.yaml", "data", None), ("moroccan-3m-cpu.yaml", "train", None), ("fra-arb-3m-cpu.yaml", "train", None),
    ("darija-30m-cpu.yaml", "train", args.steps), ("darija-lora.yaml", "train", args.steps),
]


def run(folder, *command):
    """Seconds and peak memory (bytes) of a command."""
    start = time.perf_counter()
    with open(folder / "said", "w") as said:
        child = subprocess.Popen([jazari, *command], cwd=folder, stdout=said, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit((folder / "said").read_text())
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def train(folder, recipe, steps):
    capped = [] if steps is None else [f"max_steps={steps}", "warmup_ratio=0.1", "logging_steps=1", f"eval_steps={steps}", f"save_steps={steps}", "expect={}"]
    text = (ROOT / "configs" / recipe).read_text()
    if steps is not None and "max_tokens:" in text:
        capped[0] = f"max_tokens={steps * 32 * 512} tok"
    seconds, memory = run(folder, "train", f"configs/{recipe}", *[word for part in capped for word in ("--set", part)])
    output = folder / re.search(r"^output_dir: *(\S+)", text, re.M)[1]
    records = [json.loads(line) for line in open(output / "metrics.jsonl")]
    speed = statistics.median(record["tokens_per_second"] for record in records if "loss" in record)
    plan = json.loads((output / "plan.json").read_text())
    row = plan["global_batch_rows"] * plan["sequence_len"]
    started = [json.loads(line) for line in open(output / "events.jsonl")][0]
    energy = sum(record.get("energy_joules", 0) for record in records)
    whole = None
    if steps is not None:
        total = 300 if recipe == "darija-lora.yaml" else 20_000_000 // row
        whole = total * row / speed
    return {"seconds": seconds, "whole": whole, "memory": memory, "speed": speed,
            "energy": f"{energy / 3.6e6:.4f} kWh" if energy else "not measurable", "device": started["device"]}


def duration(seconds):
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


rows = []
with tempfile.TemporaryDirectory() as work:
    work = pathlib.Path(work)
    for name in ("configs", "samples"):
        (work / name).symlink_to(ROOT / name)
    (work / "corpora").symlink_to(args.corpora.resolve())
    for recipe, kind, steps in RECIPES:
        print(recipe, file=sys.stderr, flush=True)
        if recipe == "moroccan-data.yaml" and args.data:
            (work / "data").mkdir()
            (work / "data/moroccan").symlink_to(args.data.resolve())
            rows.append((recipe, "not measured", "-", "-", "-"))
        elif kind == "data":
            seconds, memory = run(work, "data", "prepare", f"configs/{recipe}")
            rows.append((recipe, duration(seconds), f"{memory / 2**20:.0f} MiB", "-", "not measurable"))
        else:
            if recipe == "ci-dpo.yaml":
                run(work, "export", "runs/ci-sft", "--out", "runs/ci-sft-model")
            cost = train(work, recipe, steps)
            length = duration(cost["seconds"]) if cost["whole"] is None else f"~{duration(cost['whole'])}"
            rows.append((recipe, length, f"{cost['memory'] / 2**20:.0f} MiB", f"{cost['speed']:,.0f}", cost["energy"]))
            device = cost["device"]
        print(rows[-1], file=sys.stderr, flush=True)

commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
today = datetime.date.today().isoformat()
table = [f"# What the recipes cost\n", f"{today}, commit {commit}, {device}, {platform.system()}. One run each.\n",
         "`benches/recipes.py --corpora ../shared/corpora`; ~ is computed from the speed of some steps.\n",
         "| recipe | time | peak memory | tokens/s | energy |", "|---|---|---|---|---|"]
table += ["| `{}` | {} | {} | {} | {} |".format(*row) for row in rows]
path = args.out / f"{today}-recipes.md"
path.write_text("\n".join(table) + "\n")
print(path.read_text())
