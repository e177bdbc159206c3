#!/usr/bin/env bash
# What a machine with an NVIDIA GPU has to show: ci-tiny trains there as on the CPU, in bf16 as well, the reference
# bundles agree, and a 124 M model is timed beside PyTorch. Prints tables; leaves everything in OUT.
# usage: [OUT=dir] [PEER=bench_torch.py] [FIXTURES=dir] scripts/gpu-check.sh [folder with jazari and bench-train, plain or .xz]
set -euo pipefail
cd "$(dirname "$0")/.."
out="$(realpath -m "${OUT:-runs/gpu-check}")/gpu-check" work="$(mktemp -d)" failed=0
mkdir -p "$out"
if [ $# -eq 0 ]; then
  cargo build --release -p trainer -p benches --features trainer/cuda,benches/cuda --bins
  set -- "${CARGO_TARGET_DIR:-target}/release"
fi
for name in jazari bench-train; do
  [ ! -e "$1/$name" ] || cp "$1/$name" "$work/$name"
  [ -e "$work/$name" ] || python3 -c 'import lzma, sys; open(sys.argv[2], "wb").write(lzma.open(sys.argv[1]).read())' "$1/$name.xz" "$work/$name"
  chmod +x "$work/$name"
done
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
# A part that fails is counted and the others still run: time on a GPU is rare.
part() { step "$1"; shift; "$@" || { echo "FAILED: $*"; failed=$((failed + 1)); }; }

step "machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
if [ -z "${CUDA_PATH:-}" ] && [ ! -e /usr/local/cuda/include/cuda_fp16.h ]; then
  CUDA_PATH="$(python3 -c 'import glob, site; print(*[p[:-20] for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/*/include/cuda_fp16.h")][:1])')"
  export CUDA_PATH
fi; echo "CUDA_PATH=${CUDA_PATH:-/usr/local/cuda}"

train() { # name, key=value...
  local name="$1"; shift
  "$work/jazari" train configs/ci-tiny.yaml --set "output_dir=$out/$name" --set "datasets=[{path: $work/data}]" "${@/#/--set=}"
}
compare() { # name, relative tolerance
  python3 - "$out/cpu/metrics.jsonl" "$out/$1/metrics.jsonl" "$2" <<'PYTHON'
import json, sys
read = lambda path: {r["step"]: r["loss"] for r in map(json.loads, open(path)) if "loss" in r}
(cpu, gpu), tolerance = map(read, sys.argv[1:3]), float(sys.argv[3])
worst = max(abs(gpu[s] - cpu[s]) / abs(cpu[s]) for s in cpu)
for s in sorted(cpu)[:: max(1, len(cpu) // 8)]: print(f"step {s:5}  cpu {cpu[s]:.6f}  gpu {gpu[s]:.6f}  relative {abs(gpu[s] - cpu[s]) / cpu[s]:.1e}")
print(f"{len(cpu)} steps, worst {worst:.1e}, allowed {tolerance:.0e}")
sys.exit(cpu.keys() != gpu.keys() or not worst <= tolerance)
PYTHON
}
step "sample corpus" && "$work/jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=$work/data"
part "ci-tiny on the CPU" train cpu device=cpu
part "ci-tiny on the GPU" train gpu device=cuda:0
part "losses, fp32" compare gpu 1e-3
part "ci-tiny in bf16" train bf16 device=cuda:0 precision=bf16-mixed
part "losses, bf16" compare bf16 2e-2
part "NCCL, one and two ranks" scripts/nccl-check.sh "$work/jazari" "$work/data" "$out"
for bundle in ${FIXTURES:+"$FIXTURES"/llama*}; do part "parity $bundle" "$work/jazari" parity "$bundle" --device cuda:0; done

model=(--layers 12 --d-model 768 --heads 12 --kv-heads 12 --ffn 2048 --vocab 50304 --tie --batch 16 --seq 1024 --steps 20 --warmup 5)
for dtype in fp32 bf16; do
  part "124 M, $dtype, ours" "$work/bench-train" "${model[@]}" --device cuda:0 --dtype "$dtype" --json "$out/bench.jsonl"
  if [ -n "${PEER:-}" ]; then part "124 M, $dtype, PyTorch" python3 "$PEER" "${model[@]}" --device cuda:0 --dtype "$dtype" --json "$out/bench.jsonl"; fi
done
step "done: $out, $failed failed"
exit "$((failed > 0))"
