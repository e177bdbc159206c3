#!/usr/bin/env bash
# What a graphics adapter behind wgpu has to show: ci-tiny trains there as on the CPU, in full, with LoRA and with
# activations computed twice, and the reference bundles agree. Any Vulkan driver will do, also one in software (Debian:
# mesa-vulkan-drivers, with VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json).
# usage: [OUT=dir] [FIXTURES=dir] [DEVICE=wgpu:0] [STEPS=10] [LIMIT=600, seconds a run] scripts/wgpu-check.sh [jazari built with --features wgpu]
set -euo pipefail
cd "$(dirname "$0")/.."
out="$(realpath -m "${OUT:-runs}")/wgpu-check" device="${DEVICE:-wgpu:0}" steps="${STEPS:-10}" failed=0
rm -rf "$out"; mkdir -p "$out"
if [ $# -eq 0 ]; then
  cargo build --release -p trainer --features wgpu --bin jazari
  set -- "${CARGO_TARGET_DIR:-target}/release/jazari"
fi
jazari="$1"
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
part() { step "$1"; shift; "$@" || { echo "FAILED: $*"; failed=$((failed + 1)); }; }
train() { # name, key=value...
  local name="$1"; shift
  timeout -k 5 "${LIMIT:-600}" "$jazari" train "$config" --set "output_dir=$out/$name" --set "datasets=[{path: $out/data}]" \
    --set "max_steps=$steps" --set "warmup_steps=2" --set "logging_steps=1" --set "expect={}" "${@/#/--set=}" > "$out/$name.log" 2>&1 \
    || { echo "$name: exit code $? (124, 137: not done in time)"; tail -5 "$out/$name.log"; return 1; }
}
compare() { # name, name of the CPU's run, relative tolerance
  python3 - "$out/$2/metrics.jsonl" "$out/$1/metrics.jsonl" "$3" <<'PYTHON'
import json, sys
read = lambda path: {r["step"]: r["loss"] for r in map(json.loads, open(path)) if "loss" in r}
(cpu, gpu), tolerance = map(read, sys.argv[1:3]), float(sys.argv[3])
worst = max(abs(gpu[s] - cpu[s]) / abs(cpu[s]) for s in cpu)
print(f"{len(cpu)} steps, losses {cpu[min(cpu)]:.6f} to {cpu[max(cpu)]:.6f}, worst relative difference {worst:.1e}, allowed {tolerance:.0e}")
sys.exit(0 if gpu.keys() == cpu.keys() and worst <= tolerance else 1)
PYTHON
}
both() { # name, tolerance, key=value...
  local name="$1" tolerance="$2"; shift 2
  train "$name-cpu" device=cpu "$@" && train "$name-wgpu" "device=$device" "$@" && compare "$name-wgpu" "$name-cpu" "$tolerance"
}

step "data"
"$jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=$out/data" > "$out/data.log" 2>&1 || { tail -5 "$out/data.log"; exit 1; }
config=configs/ci-tiny.yaml
part "all weights" both full 1e-4
part "activations of every other block computed twice" both twice 1e-4 gradient_checkpointing=selective
config="$out/lora.yaml" # the model's dimensions are those of the base
sed '/^model:/,/^$/d' configs/ci-tiny.yaml > "$config"
part "LoRA" both lora 1e-4 "base_model=$out/full-cpu" adapter=lora lora_r=4
for bundle in ${FIXTURES:+"$FIXTURES"/llama "$FIXTURES"/qwen2 "$FIXTURES"/gemma2 "$FIXTURES"/gpt2}; do
  [ ! -d "$bundle" ] || part "reference bundle $(basename "$bundle")" "$jazari" parity "$bundle" --device "$device"
done
step "done: $failed failed"
[ "$failed" -eq 0 ]
