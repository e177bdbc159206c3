#!/usr/bin/env python3
"""Prepares the same corpus with jazari, datatrove and dolma, step by step and in turn, and writes the medians to
benches/results/DATE-pipeline.{json,md}: MB of text per CPU second (user and system, all processes, start-up included),
wall time, peak memory of the process tree. The corpus: pages cut from --corpora (long documents about 7 kB, short rows 20
to a page) and a second copy of them with shuffled words, a tenth of it with three words of a hundred replaced.
usage: compare_pipeline.py --corpora DIR [--jazari target/release/jazari] [--rounds 3] [--steps read,pii] [--mb 100]
Virtual environments are made in .venv-datatrove and .venv-dolma unless --datatrove PYTHON and --dolma DOLMA name some."""
import argparse, datetime, gzip, json, os, pathlib, platform, random, shutil, statistics, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATATROVE = "datatrove==0.10.1 orjson zstandard xxhash<4 tokenizers ftfy fasteners regex nltk pyahocorasick tldextract spacy".split()
# dolma pins a package that no longer builds: it is installed without its dependencies, and they beside it.
DOLMA = "numpy<2.3 anyascii blingfire==0.1.8 omegaconf msgspec smart-open tokenizers uniseg necessary charset-normalizer zstandard requests rich platformdirs nltk==3.8.1 fsspec tqdm pyyaml fasttext-numpy2-wheel boto3 cached-path s3fs".split()

parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--corpora", required=True, type=pathlib.Path)
parser.add_argument("--jazari", type=pathlib.Path, default=ROOT / "target/release/jazari")
parser.add_argument("--datatrove", type=pathlib.Path)
parser.add_argument("--dolma", type=pathlib.Path)
parser.add_argument("--mb", type=float, default=100)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", default="read,filters,pii,exact,minhash,tokens,train")
parser.add_argument("--tasks", type=int, default=2, help="processes of the peers and threads of jazari")
parser.add_argument("--work", type=pathlib.Path)
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
args = parser.parse_args()
work = args.work or pathlib.Path(tempfile.mkdtemp(prefix="pipeline-"))


def environment(name, given, packages, bare=()):
    if given:
        return given
    python = ROOT / name / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / name], check=True)
        for more in ([*(["--no-deps", *bare] if bare else [])], packages):
            if more:
                subprocess.run([python, "-m", "pip", "install", "-q", *more], check=True)
    return python if not bare else python.parent / "dolma"


def pages():
    """Pages of all sources in order, as rows."""
    for path in sorted(args.corpora.glob("*/data.jsonl")):
        held = {}
        for line in open(path):
            row = json.loads(line)
            kept = {key: row.get(key) for key in ("lang", "script", "source", "licence")}
            data = row["text"].encode()
            if len(data) > 2000:
                for start in range(0, len(data), 7000):
                    yield {"text": data[start : start + 7000].decode(errors="ignore"), **kept}
                continue
            group = held.setdefault(json.dumps(kept), [])
            group.append(row["text"])
            if len(group) == 20:
                yield {"text": "\n".join(group), **kept}
                group.clear()
        for kept, group in held.items():
            if group:
                yield {"text": "\n".join(group), **json.loads(kept)}


def build():
    """Eight files of rows, the same as dolma wants them; returns megabytes of text and the number of rows."""
    chance, rows = random.Random(7), list(pages())
    for row in rows[:]:
        words = row["text"].split(" ")
        if chance.randrange(10):
            chance.shuffle(words)
        else:
            for _ in range(len(words) * 3 // 100):
                words[chance.randrange(len(words))] = chance.choice(words)
        rows.append({**row, "text": " ".join(words)})
    chance.shuffle(rows)
    total = sum(len(row["text"].encode()) for row in rows) / 1e6
    rows = rows[: int(len(rows) * min(1.0, args.mb / total))]
    (work / "corpus").mkdir(parents=True, exist_ok=True)
    (work / "dolma/documents").mkdir(parents=True, exist_ok=True)
    for part in range(8):
        text = "".join(json.dumps({"id": str(n), **row}, ensure_ascii=False) + "\n" for n, row in enumerate(rows) if n % 8 == part)
        (work / f"corpus/{part}.jsonl").write_text(text)
        with gzip.open(work / f"dolma/documents/{part}.jsonl.gz", "wt", compresslevel=1) as file:
            file.write(text)
    (work / "data.yaml").write_text(f"""output_dir: {work}/out/data
sources: [{{path: "{work}/corpus/*.jsonl"}}]
allow_licences: {json.dumps(sorted({row["licence"] for row in rows}))}
non_commercial: true
dedup: none
tokenizer: {{path: {work}/tokenizer}}
""")
    (work / "train.yaml").write_text((work / "data.yaml").read_text().replace(f"{{path: {work}/tokenizer}}", "{train: {vocab_size: 32768, temperature: 1.0}}"))
    return sum(len(row["text"].encode()) for row in rows) / 1e6, len(rows)


def tree(pid):
    """The process and all below it."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        try:
            for task in os.listdir(f"/proc/{found[-1]}/task"):
                waiting += map(int, open(f"/proc/{found[-1]}/task/{task}/children").read().split())
        except OSError:
            pass
    return found


def memory(pid):
    total = 0
    for process in tree(pid):
        try:
            total += next(int(line.split()[1]) for line in open(f"/proc/{process}/smaps_rollup") if line.startswith("Pss:"))
        except (OSError, StopIteration):
            pass
    return total / 1024


def measure(command, name):
    """CPU seconds, wall seconds, peak MiB of a shell command."""
    shutil.rmtree(work / "out", ignore_errors=True)
    (work / "out").mkdir()
    log, begin, peak = open(work / f"{name}.log", "w"), time.monotonic(), 0.0
    process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", command], stdout=log, stderr=log, env={**os.environ, "RAYON_NUM_THREADS": str(args.tasks), "TOKENIZERS_PARALLELISM": "false"})
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, memory(process.pid))
        time.sleep(0.05)
    if status:
        sys.exit(f"{name} failed, see {work}/{name}.log:\n{(work / f'{name}.log').read_text()[-2000:]}")
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": time.monotonic() - begin, "peak_mib": peak}


datatrove = environment(".venv-datatrove", args.datatrove, DATATROVE)
dolma = environment(".venv-dolma", args.dolma, DOLMA, ["dolma==1.0.7"])
j, corpus, out = args.jazari, f"{work}/corpus/*.jsonl", work / "out"
peer = lambda step, *more: " ".join(map(str, [datatrove, ROOT / "benches/pipeline_peers.py", step, work / "corpus", out, args.tasks, *more]))
tag = lambda names: f"{dolma} tag --documents '{work}/dolma/documents/*.gz' --destination {out}/tags --experiment e --taggers {names} --processes {args.tasks}"
bloom = f"--bloom_filter.file {out}/bloom --bloom_filter.estimated_doc_count 100000 --bloom_filter.desired_false_positive_rate 0.0001 --no-bloom_filter.read_only --processes {args.tasks}"
STEPS = {  # what it is, then the command of each program
    "read": ("read and write JSONL", {"jazari": f"{j} data read {corpus} --out {out}/a.jsonl", "datatrove": peer("read")}),
    "filters": ("normalise, identify, filter", {"jazari": f"{j} data clean {corpus} --steps normalize,identify,filters --out {out}/a.jsonl", "datatrove": peer("filters"), "dolma": tag("gopher_v2 c4_v2")}),
    "pii": ("personal data", {"jazari": f"{j} data scrub --pii {corpus} --out {out}/a.jsonl", "datatrove": peer("pii"), "dolma": tag("pii_regex_with_counts_fast_v2")}),
    "exact": ("exact duplicates", {"jazari": f"{j} data dedup --exact --drop {corpus} --out {out}/a.jsonl", "datatrove": peer("exact"), "dolma": f"{dolma} dedupe --documents '{work}/dolma/documents/*.gz' --dedupe.documents.attribute_name d --dedupe.documents.key '$.text' --dedupe.name n {bloom}"}),
    "minhash": ("near duplicates (MinHash)", {"jazari": f"{j} data dedup --near --bands 14 --rows-per-band 8 --drop {corpus} --out {out}/a.jsonl", "datatrove": peer("minhash")}),
    "tokens": ("tokens and shards", {"jazari": f"{j} data prepare {work}/data.yaml", "datatrove": peer("tokens", work / "tokenizer/tokenizer.json"), "dolma": f"{dolma} tokens --documents '{work}/dolma/documents/*.gz' --destination {out}/npy --tokenizer.name_or_path {work}/tokenizer/tokenizer.json --tokenizer.eos_token_id 0 --tokenizer.pad_token_id 0 --dtype uint16 --processes {args.tasks}"}),
    "train": ("BPE, 32,768 tokens", {"jazari": f"{j} tokenizer train {work}/train.yaml --out {out}/tokenizer", "tokenizers": peer("train")}),
}
megabytes, rows = build()
steps = args.steps.split(",")
if "tokens" in steps and not (work / "tokenizer").exists():
    subprocess.run([j, "tokenizer", "train", work / "train.yaml", "--out", work / "tokenizer"], check=True, stdout=subprocess.DEVNULL)
runs = []
for step in steps:
    for turn in range(args.rounds):
        for name, command in STEPS[step][1].items():
            shutil.rmtree(work / "dolma/attributes", ignore_errors=True)
            runs.append({"step": step, "turn": turn, "name": name, **measure(command, f"{step}-{name}")})
            print(step, turn, name, f"{megabytes / runs[-1]['cpu_s']:.2f} MB per CPU s, {runs[-1]['wall_s']:.1f} s, {runs[-1]['peak_mib']:.0f} MiB", file=sys.stderr)

cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
head = {"date": str(datetime.date.today()), "machine": f"{cpu}, {os.cpu_count()} cores", "commit": commit or "none", "load": os.getloadavg()[1], "megabytes": round(megabytes, 1), "rows": rows, "rounds": args.rounds, "processes": args.tasks}
table = []
for step in steps:
    for name in STEPS[step][1]:
        mine = [r for r in runs if (r["step"], r["name"]) == (step, name)]
        row = {field: statistics.median(r[field] for r in mine) for field in ("cpu_s", "wall_s", "peak_mib")}
        table.append({"step": step, "name": name, "mb_per_cpu_s": megabytes / row["cpu_s"], **row})
args.out.mkdir(parents=True, exist_ok=True)
target = args.out / f"{head['date']}-pipeline"
target.with_suffix(".json").write_text(json.dumps({**head, "medians": table, "runs": runs}, indent=1) + "\n")
lines = [f"# Preparing a corpus beside datatrove and dolma, {head['date']}", "", ", ".join(f"{k}: {v}" for k, v in head.items()) + "; medians of turns, one after another. Start-up is included.", "",
         "| step | | MB per CPU s | jazari is | CPU s | wall s | peak MiB |", "|---|---|---|---|---|---|---|"]
for row in table:
    ours = next(r for r in table if (r["step"], r["name"]) == (row["step"], "jazari"))
    ratio = "" if row is ours else f"{ours['mb_per_cpu_s'] / row['mb_per_cpu_s']:.1f}x"
    lines.append(f"| {STEPS[row['step']][0]} | {row['name']} | **{row['mb_per_cpu_s']:.2f}** | {ratio} | {row['cpu_s']:.1f} | {row['wall_s']:.1f} | {row['peak_mib']:.0f} |")
target.with_suffix(".md").write_text("\n".join(lines) + "\n")
print("\n".join(lines[4:]))
