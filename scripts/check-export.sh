#!/usr/bin/env bash
# Trains the tiny config, exports it and checks the export from outside: the lint of ../shared/kit/check_export.py
# always, and, where JAZARI_PYTHON names an interpreter with transformers, greedy text and token ids against ours.
# usage: check-export.sh [EXPORT_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
kit=../shared/kit/check_export.py
jazari="${CARGO_TARGET_DIR:-target}/debug/jazari"
if [ ! -f "$kit" ]; then
  echo "SKIPPED: ../shared is absent, no export was checked from outside"
  exit 0
fi
[ -x "$jazari" ] || cargo build --workspace --bins
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export_dir="${1:-}"
if [ -z "$export_dir" ]; then
  "$jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=$work/data"
  "$jazari" train configs/ci-tiny.yaml --set "output_dir=$work/run" --set "datasets=[{path: $work/data}]"
  export_dir="$work/export"
  "$jazari" export "$work/run" --to hf --out "$export_dir"
fi
python="${JAZARI_PYTHON:-.venv-export/bin/python}"
if [ ! -x "$python" ]; then
  python3 -m venv .venv-export
  .venv-export/bin/pip install --quiet tokenizers safetensors numpy jinja2
fi
mkdir -p "$work/expected"
"$python" "$kit" "$export_dir" --expected "$work/expected" --backends lint
if [ -z "${JAZARI_PYTHON:-}" ]; then
  echo "SKIPPED: JAZARI_PYTHON is not set, the export was not opened in transformers"
  exit 0
fi
for prompt in "واش" "wach" "ⴰⵣⵓⵍ" "Le"; do
  "$jazari" generate "$export_dir" --prompt "$prompt" --max-tokens 16 > "$work/ours"
  "$python" - "$export_dir" "$prompt" "$work/ours" <<'PYTHON'
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt, ours = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
out = model.generate(ids, max_new_tokens=16, do_sample=False, pad_token_id=tokenizer.pad_token_id)
theirs, ours = tokenizer.decode(out[0], skip_special_tokens=True), open(ours, encoding="utf-8").read().rstrip("\n")
clean = lambda text: text.rstrip("�").rstrip()
print("equal" if clean(theirs) == clean(ours) else "DIFFERENT", repr(theirs), repr(ours))
sys.exit(clean(theirs) != clean(ours))
PYTHON
done
