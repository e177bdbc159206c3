#!/usr/bin/env python3
"""What the machinery of several processes costs on one host: a 10 M parameter Llama trained by 1, 2 and 4 processes of
`jazari launch` that share the same cores, in turn, with the optimizer state and the gradients whole and divided; writes the
medians over all rounds to benches/results/DATE-scaling.{json,md}. The loss of every run must be that of one process, to the
bit. usage: scaling.py [--bin target/release/jazari] [--rounds 3]"""
import argparse, datetime, json, os, pathlib, platform, re, statistics, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = [(1, 0), (2, 0), (2, 1), (2, 2), (4, 0), (4, 1), (4, 2)]
MODEL = ["model.hidden_size=384", "model.intermediate_size=1056", "model.num_hidden_layers=6",
         "model.num_attention_heads=6", "model.num_key_value_heads=3", "model.head_dim=64"]
RUN = ["sequence_len=128", "global_batch_size=8 seq", "micro_batch_size=1", "max_steps=8", "logging_steps=2",
       "eval_steps=1000", "save_steps=1000", "warmup_steps=2", "expect={}", "eval.max_tokens_per_language=128"]

parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release/jazari")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--bucket-cap-mb", type=float, default=4.0)
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
args = parser.parse_args()


def peaks_of(pids, peaks):
    """Keeps the largest resident size of each process, in MiB, while it lives."""
    while pids:
        for pid in list(pids):
            try:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
                peaks[pid] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
            except (OSError, TypeError):
                pids.discard(pid)
        time.sleep(0.05)


def run(world, zero, data, output):
    config = [str(ROOT / "configs/ci-tiny.yaml")]
    for value in [*MODEL, *RUN, f"output_dir={output}", f"datasets=[{{path: {data}}}]", f"cluster.zero={zero}",
                  f"cluster.bucket_cap_mb={args.bucket_cap_mb}"]:
        config += ["--set", value]
    command = [args.bin, "launch", "--nproc", str(world), "--", "train", *config]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peaks, said = {}, []
    for line in child.stderr:
        said.append(line)
        if pids := re.search(r", pids? (.*)$", line):
            watched = {int(pid) for pid in pids[1].split(", ")}
            threading.Thread(target=peaks_of, args=(watched, peaks), daemon=True).start()
    if child.wait() != 0:
        sys.exit("".join(said))
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record and "tokens_per_second" in record]
    manifest = json.loads((output / "checkpoints/step-00000008/MANIFEST.json").read_text())
    late = steps[1:]  # the first window holds the first touch of every buffer
    mean = lambda key: statistics.mean(record.get(key, 0) for record in late)
    return {"world": world, "zero": zero, "tokens_per_second": mean("tokens_per_second"), "stands_still": mean("communication"),
            "hidden": mean("communication_hidden"), "peak_mib": max(peaks.values(), default=0), "state": manifest["state_digest"]}


with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    data = folder / "data"
    subprocess.run([args.bin, "data", "prepare", ROOT / "configs/ci-tiny-data.yaml", "--set", f"output_dir={data}"],
                   check=True, capture_output=True, cwd=ROOT)
    results = [run(*case, data, folder / f"run-{turn}-{case[0]}-{case[1]}") for turn in range(args.rounds) for case in CASES]

assert len({result["state"] for result in results}) == 1, "the number of processes must be invisible"
rows = []
for case in CASES:
    own = [result for result in results if (result["world"], result["zero"]) == case]
    rows.append({"world": case[0], "zero": case[1], **{key: statistics.median(result[key] for result in own) for key in
                 ("tokens_per_second", "stands_still", "hidden", "peak_mib")}})
git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), platform.machine())
about = {"commit": git("rev-parse", "--short", "HEAD"), "date": str(datetime.date.today()), "machine": f"{cpu}, {os.cpu_count()} cores",
         "rounds": args.rounds, "bucket_cap_mb": args.bucket_cap_mb, "state": results[0]["state"]}
table = ["| processes | zero | tokens/s | beside one | stands still | hidden | peak MiB a process |", "|---|---|---|---|---|---|---|"]
for row in rows:
    table.append(f"| {row['world']} | {row['zero']} | {row['tokens_per_second']:.0f} | "
                 f"{row['tokens_per_second'] / rows[0]['tokens_per_second']:.2f} | {row['stands_still']:.0%} | {row['hidden']:.0%} | {row['peak_mib']:.0f} |")
text = f"""# Several processes on one host, {about['date']}

{about['machine']}; commit {about['commit']}; {args.rounds} rounds in turn, medians; 10 M parameters, 8 x 128 tokens a step, exact sums
over TCP, buckets of {args.bucket_cap_mb:g} MB. The processes share the cores, so one process is the most that can be reached.
All runs end in the state {about['state'][:12]}. Command: `benches/scaling.py`.

""" + "\n".join(table) + "\n"
name = args.out / f"{about['date']}-scaling"
name.with_suffix(".json").write_text(json.dumps({**about, "rows": rows, "results": results}, indent=1) + "\n")
name.with_suffix(".md").write_text(text)
print(text)
