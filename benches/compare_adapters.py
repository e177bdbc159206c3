#!/usr/bin/env python3
"""Trains one model of about 100 M parameters in full, with LoRA and with QLoRA, by bench-train and by PyTorch with
transformers, PEFT and bitsandbytes, in turn (A B A B), and writes medians to benches/results/DATE-cpu-adapters.{json,md}.
float32 arithmetic, rank 16 on all linear layers of the blocks, random tokens.
usage: compare_adapters.py --python PYTHON_WITH_TORCH_AND_PEFT [--bin target/release/bench-train] [--rounds 2] [--steps 3]"""
import argparse, datetime, json, os, pathlib, platform, statistics, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPE = {"layers": 12, "d-model": 768, "heads": 12, "kv-heads": 4, "ffn": 2048, "vocab": 16384, "batch": 2, "seq": 256}
KINDS = {"full": ["none", "none"], "LoRA": ["lora", "lora"], "LoRA, base in bf16": ["lora-bf16", "lora-bf16"], "QLoRA": ["qlora", "qlora"]}
FIELDS = ("tokens_per_s", "tokens_per_cpu_s", "peak_mem_gib", "loss_last")
PEER = r'''
import json, resource, sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM
o = json.loads(sys.argv[1]); torch.set_num_threads(o["threads"]); torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(hidden_size=o["d-model"], intermediate_size=o["ffn"], num_hidden_layers=o["layers"],
    num_attention_heads=o["heads"], num_key_value_heads=o["kv-heads"], vocab_size=o["vocab"], max_position_embeddings=o["seq"], tie_word_embeddings=False))
if o["kind"] != "none":
    from peft import LoraConfig, get_peft_model
    if o["kind"] == "qlora":
        import bitsandbytes as bnb
        for layer in model.model.layers:
            for block in (layer.self_attn, layer.mlp):
                for name, old in list(block.named_children()):
                    if isinstance(old, torch.nn.Linear):
                        new = bnb.nn.Linear4bit(old.in_features, old.out_features, bias=False, compute_dtype=torch.float32, compress_statistics=True, quant_type="nf4")
                        new.weight = bnb.nn.Params4bit(old.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
                        setattr(block, name, new.to("cpu"))
    if o["kind"] == "lora-bf16": model = model.to(torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))
trained = [p for p in model.parameters() if p.requires_grad]
adamw = torch.optim.AdamW(trained, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, foreach=True)
batches = [torch.randint(0, o["vocab"], (o["batch"], o["seq"])) for _ in range(4)]
def step(i):
    ids = batches[i % 4]; loss = model(input_ids=ids, labels=ids).loss; loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0); adamw.step(); adamw.zero_grad(set_to_none=True); return loss.item()
step(0); start, cpu = time.perf_counter(), time.process_time()
for i in range(o["steps"]): loss = step(i + 1)
tokens = o["steps"] * o["batch"] * o["seq"]
print(json.dumps({"tokens_per_s": round(tokens / (time.perf_counter() - start), 1), "tokens_per_cpu_s": round(tokens / (time.process_time() - cpu), 1),
    "peak_mem_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3), "loss_last": round(loss, 4), "torch": torch.__version__}))
'''
parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--python", required=True, type=pathlib.Path)
parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release/bench-train")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/results")
args = parser.parse_args()

def ours(kind):
    options = [text for key, value in SHAPE.items() for text in (f"--{key}", str(value))]
    with tempfile.NamedTemporaryFile("r") as file:
        fixed = ["--adapter", kind, "--steps", str(args.steps), "--warmup", "1", "--threads", str(args.threads), "--device", "cpu", "--dtype", "fp32"]
        subprocess.run([args.bin, *options, *fixed, "--json", file.name], check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read().splitlines()[-1])

def theirs(kind):
    options = json.dumps({**SHAPE, "kind": kind, "steps": args.steps, "threads": args.threads})
    said = subprocess.run([args.python, "-c", PEER, options], capture_output=True, text=True)
    return json.loads(said.stdout.splitlines()[-1]) if said.returncode == 0 else {"failed": said.stderr.strip().splitlines()[-1:]}

runs = []
for turn in range(args.rounds):
    for kind, (own, peer) in KINDS.items():
        for name, result in (("PyTorch", theirs(peer)), ("Jazari", ours(own))):
            runs.append({"kind": kind, "turn": turn, "name": name, **result})
            print(kind, turn, name, {f: result.get(f) for f in (*FIELDS, "base_weights_mib", "failed") if f in result}, file=sys.stderr)

def median(kind, name, field):
    values = [r[field] for r in runs if (r["kind"], r["name"]) == (kind, name) and field in r]
    return statistics.median(values) if values else None

cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
head = {"date": str(datetime.date.today()), "machine": f"{cpu}, {args.threads} threads", "commit": commit or "none", "torch": next((r["torch"] for r in runs if "torch" in r), "none"), "rounds": args.rounds, "steps": args.steps}
table = [{"kind": k, "name": n, **{f: median(k, n, f) for f in (*FIELDS, "base_weights_mib")}} for k in KINDS for n in ("PyTorch", "Jazari")]
def ratio(kind, field):
    """Median over the turns of one turn's ratio: both of a turn ran within a minute, on a machine with other work."""
    pair = lambda turn: [next((r[field] for r in runs if (r["kind"], r["turn"], r["name"]) == (kind, turn, name) and field in r), None) for name in ("Jazari", "PyTorch")]
    ratios = [own / peer for own, peer in map(pair, range(args.rounds)) if own and peer]
    return round(statistics.median(ratios), 3) if ratios else None

ratios = {k: {f: ratio(k, f) for f in FIELDS[:3]} for k in KINDS}
args.out.mkdir(parents=True, exist_ok=True)
target = args.out / f"{head['date']}-cpu-adapters"
target.with_suffix(".json").write_text(json.dumps({**head, "shape": SHAPE, "medians": table, "ratios": ratios, "runs": runs}, indent=1) + "\n")
rows = [f"| {r['kind']} | {r['name']} | " + " | ".join(str(r[f]) for f in (*FIELDS, "base_weights_mib")) + " |" for r in table]
rows += [f"| {k} | Jazari ÷ PyTorch | " + " | ".join(str(ratios[k].get(f, "")) for f in FIELDS[:3]) + " | | |" for k in KINDS]
text = [f"# Adapters on the CPU beside PyTorch with PEFT, {head['date']}", "", ", ".join(f"{k}: {v}" for k, v in head.items()) + "; medians, ratios as medians of turns; float32 arithmetic.", "", f"Shape: {SHAPE}.", "", "| | | " + " | ".join((*FIELDS, "base_weights_mib")) + " |", "|---" * 7 + "|", *rows]
target.with_suffix(".md").write_text("\n".join(text) + "\n")
print("\n".join(rows))
