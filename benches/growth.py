#!/usr/bin/env python3
"""Trains one small model with longer sequences and larger vocabularies, with bench-train and with a PyTorch peer in turn, and
writes tokens per second and peak memory to benches/results/DATE-growth.{json,svg}. 4 layers of width 256 (8 heads, 4 of them
of keys), float32, 2,048 tokens a step or one longer row; the sequence grows at a vocabulary of 8,192, the vocabulary at a
sequence of 512.
usage: growth.py --peer bench_torch.py --python PYTHON_WITH_TORCH [--bin target/release/bench-train] [--rounds 2]"""
import argparse, datetime, json, os, pathlib, platform, statistics, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--peer", required=True, type=pathlib.Path)
parser.add_argument("--python", required=True, type=pathlib.Path)
parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release/bench-train")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--seq", default="256,1024,4096,8192")
parser.add_argument("--vocab", default="8192,32768,131072,262144")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
args = parser.parse_args()

sizes = lambda text: [int(size) for size in text.split(",")]
POINTS = [("sequence length", seq, 8192, seq) for seq in sizes(args.seq)] + [("vocabulary", 512, vocab, vocab) for vocab in sizes(args.vocab)]
COMMANDS = {"PyTorch": [args.python, args.peer, "--compile", "none"], "Jazari": [args.bin]}
COLOURS = {"PyTorch": "#c0392b", "Jazari": "#1a7f5a"}


def run(command, seq, vocab):
    shape = f"--layers 4 --d-model 256 --heads 8 --kv-heads 4 --ffn 704 --vocab {vocab} --batch {max(1, 2048 // seq)} --seq {seq}"
    with tempfile.NamedTemporaryFile("r") as file:
        options = [*shape.split(), "--steps", str(args.steps), "--threads", str(args.threads), "--device", "cpu", "--dtype", "fp32", "--json", file.name]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read().splitlines()[-1])


runs = []
for turn in range(args.rounds):
    for what, seq, vocab, size in POINTS:
        for name, command in COMMANDS.items():
            line = run(command, seq, vocab)
            runs.append({"what": what, "size": size, "name": name, "turn": turn, **{field: line[field] for field in ("tokens_per_s", "best_tokens_per_s", "peak_mem_gib")}})
            print(*runs[-1].values(), file=sys.stderr)


def median(what, size, name, field):
    return statistics.median(r[field] for r in runs if (r["what"], r["size"], r["name"]) == (what, size, name))


def panel(x, y, what, field, unit):
    """One chart: sizes in equal steps, as all are powers of two apart, values from 0."""
    width, height = 300, 170
    points = [size for kind, _, _, size in POINTS if kind == what]
    values = {name: [median(what, size, name, field) for size in points] for name in COMMANDS}
    top = max(max(v) for v in values.values()) * 1.15
    at = lambda i, v: (x + 20 + (width - 40) * i / max(1, len(points) - 1), y + height - height * v / top)
    out = [f'<text x="{x}" y="{y - 12}" font-weight="bold">{unit} by {what}</text>', f'<path d="M{x} {y}V{y + height}H{x + width}" fill="none" stroke="#888"/>']
    out += [f'<text x="{at(i, 0)[0]:.0f}" y="{y + height + 26}" text-anchor="middle">{size:,}</text>' for i, size in enumerate(points)]
    for name, series in values.items():
        corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(i, v) for i, v in enumerate(series)))
        out.append(f'<polyline points="{corners}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        above = [value >= other for value, other in zip(series, values["PyTorch" if name == "Jazari" else "Jazari"])]
        for i, value in enumerate(series):
            a, b = at(i, value)
            label = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
            out.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{COLOURS[name]}"/><text x="{a:.1f}" y="{b - 7 if above[i] else b + 16:.1f}" text-anchor="middle" fill="{COLOURS[name]}">{label}</text>')
    return out


cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
head = {"date": str(datetime.date.today()), "machine": f"{cpu}, {args.threads} threads", "commit": commit or "none", "rounds": args.rounds, "steps": args.steps}
svg = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 550" font-family="sans-serif" font-size="11">', '<rect width="760" height="550" fill="#fff"/>', f'<text x="40" y="24" font-size="14" font-weight="bold">Training on the CPU as work grows, {head["date"]}</text>', f'<text x="40" y="42">{head["machine"]}, commit {head["commit"]}, medians of {args.rounds}</text>']
svg += [f'<text x="{620 + 70 * i}" y="24" fill="{colour}" font-weight="bold">{name}</text>' for i, (name, colour) in enumerate(COLOURS.items())]
for x, what in ((40, "sequence length"), (420, "vocabulary")):
    svg += panel(x, 90, what, "best_tokens_per_s", "tokens/s") + panel(x, 330, what, "peak_mem_gib", "GiB")
args.out.mkdir(parents=True, exist_ok=True)
target = args.out / f"{head['date']}-growth"
target.with_suffix(".svg").write_text("\n".join([*svg, "</svg>"]) + "\n")
target.with_suffix(".json").write_text(json.dumps({**head, "runs": runs}, indent=1) + "\n")
