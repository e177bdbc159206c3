#!/usr/bin/env python3
"""Says where the milliseconds of a training step on the CPU go: samples bench-train with `perf record` and adds the samples up
by what the function is for. The steps are timed in the same run; what waits for a thread is the rest of the threads' time.
usage: step_profile.py [--bin BENCH_TRAIN] [--steps 30] [--perf perf]
The binary needs its symbols: `cargo rustc --release -p benches --bin bench-train -- -C strip=none`."""
import argparse, collections, datetime, json, os, pathlib, platform, subprocess, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = {
    "a": "--layers 6 --d-model 256 --heads 8 --kv-heads 4 --ffn 704 --vocab 8192 --batch 8 --seq 256",
    "b": "--layers 8 --d-model 512 --heads 8 --kv-heads 4 --ffn 1408 --vocab 16384 --batch 4 --seq 512",
    "c": "--layers 8 --d-model 512 --heads 8 --kv-heads 4 --ffn 1408 --vocab 16384 --batch 1 --seq 2048 --tie",
}
# The first that a symbol contains decides.
PARTS = [
    ("products: tiles in registers", ("kernel::avx512::by_columns", "kernel::avx2::by_columns", "kernel::portable::by_columns")),
    ("products: packing", ("::pack_left", "::pack_right", "transpose_panel")),
    ("attention", ("::attention::", "::by_rows", "::dot::")),
    ("activations", ("::glu::", "::gelu::", "gated_linear")),
    ("norms", ("rms_norm", "layer_norm", "norm_linears")),
    ("positions", ("::rope::",)),
    ("loss over the vocabulary (without its products), softmax", ("cross_entropy", "exp_in_place", "sum_exp", "::max::", "::scale::")),
    ("optimizer, clip", ("::adamw::", "::muon::", "::reduce::")),
    ("sums of gradients, other vectors", ("::simd::", "embedding", "::branches::", "::parallel::", "__mem")),
    ("products: cutting", ("::gemm::",)),
    ("handing out work", ("rayon", "sched", "futex", "spin", "task_switch", "crossbeam", "Registry")),
]
SETTING_UP = ("philox", "clear_page", "init::", "random")

parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release/bench-train")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--perf", default="perf")
args = parser.parse_args()

def profile(options):
    """The run's figures, and samples by part."""
    with tempfile.TemporaryDirectory() as out:
        data, line = f"{out}/perf.data", f"{out}/line.json"
        command = [args.bin, *options.split(), "--steps", str(args.steps), "--peak-tflops", "1", "--json", line]
        subprocess.run([args.perf, "record", "-q", "-F", "499", "-o", data, *command], check=True, stdout=subprocess.DEVNULL)
        samples = subprocess.run([args.perf, "script", "-i", data, "-F", "ip,sym"], check=True, capture_output=True, text=True).stdout
        figures = json.loads(pathlib.Path(line).read_text())
    counts = collections.Counter()
    for symbol in (line.strip().partition(" ")[2] for line in samples.splitlines() if line.strip()):
        if not any(word in symbol for word in SETTING_UP):
            counts[next((part for part, words in PARTS if any(word in symbol for word in words)), "all else")] += 1
    return figures, counts

cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
print(f"date: {datetime.date.today()}, machine: {cpu}, commit: {commit or 'none'}, steps: {args.steps}")
for shape, options in SHAPES.items():
    figures, counts = profile(options)
    threads, step, busy = os.cpu_count(), figures["ms_per_step"], figures["cpu_s_per_wall_s"]
    print(f"\n({shape}) `{options}`: {step:.0f} ms a step, {figures['tokens_per_s']:.0f} tokens/s, {threads} threads, of which {busy:.2f} at work\n")
    print("| part | ms a step | share |\n|---|---|---|")
    for part, count in counts.most_common():
        share = count / counts.total() * busy / threads
        print(f"| {part} | {step * share:.1f} | {100 * share:.1f} % |")
    print(f"| a thread waits | {step * (1 - busy / threads):.1f} | {100 * (1 - busy / threads):.1f} % |")
