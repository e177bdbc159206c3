#!/usr/bin/env bash
# Trains a tiny base and adapters of every kind on it, exports them as PEFT directories, and compares logits in PEFT with
# those of our merged export. JAZARI_PYTHON names an interpreter with torch, transformers and peft; without it a virtual
# environment is made in .venv-adapter (some GB).
# usage: check-adapter.sh
set -euo pipefail
cd "$(dirname "$0")/.."
jazari="${JAZARI_BIN:-${CARGO_TARGET_DIR:-target}/debug/jazari}"
[ -x "$jazari" ] || cargo build --workspace --bins
python="${JAZARI_PYTHON:-.venv-adapter/bin/python}"
if [ ! -x "$python" ]; then
  python3 -m venv .venv-adapter
  .venv-adapter/bin/pip install --quiet torch transformers peft
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=$work/data"
"$jazari" train configs/ci-tiny.yaml --set "output_dir=$work/base-run" --set "datasets=[{path: $work/data}]"
"$jazari" export "$work/base-run" --out "$work/base"
train() {  # NAME KEYS...
  name="$1"; shift
  printf '%s\n' "config_version: 1" "output_dir: $work/$name" "base_model: $work/base" "datasets: [{path: $work/data}]" \
    "sequence_len: 64" "global_batch_size: 8 seq" "max_steps: 12" "learning_rate: 2e-2" "device: cpu" "$@" > "$work/$name.yaml"
  "$jazari" train "$work/$name.yaml"
  "$jazari" export "$work/$name" --out "$work/$name-merged"
  "$jazari" export "$work/$name" --to adapter --out "$work/$name-adapter"
}
train lora "adapter: lora" "lora_r: 4" "lora_rank_pattern: {down_proj: 8}" "lora_layers_to_transform: [1]"
train rslora "adapter: lora" "lora_r: 6" "use_rslora: true" "lora_target_modules: [q_proj, v_proj]"
train dora "adapter: lora" "lora_r: 4" "use_dora: true" "lora_modules_to_save: [norm]"
train regex "adapter: lora" "lora_r: 3" "lora_target_modules: '.*mlp\\.(up|down)_proj'" "lora_alpha_pattern: {up_proj: 2.5}"

"$python" - "$work" lora rslora dora regex <<'PY'
import sys, torch
from transformers import AutoModelForCausalLM
from peft import PeftModel
work, names, worst = sys.argv[1], sys.argv[2:], 0.0
ids = (torch.arange(96).reshape(2, 48) * 37 + 5) % 900
for name in names:
    logits = lambda model: model.eval()(ids).logits.double()
    base = AutoModelForCausalLM.from_pretrained(f"{work}/base", dtype=torch.float32)
    plain = logits(base).detach()
    ours = logits(AutoModelForCausalLM.from_pretrained(f"{work}/{name}-merged", dtype=torch.float32))
    theirs = logits(PeftModel.from_pretrained(base, f"{work}/{name}-adapter"))
    apart, moved = (ours - theirs).abs().max().item(), (theirs - plain).abs().max().item()
    print(f"{name}: PEFT and the merged export differ by {apart:.2e}; the adapter moves logits by {moved:.2f}")
    assert moved > 0.01 and apart < 1e-4 * ours.abs().max().item(), name
PY
