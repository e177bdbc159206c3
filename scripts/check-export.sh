#!/usr/bin/env bash
# Trains the tiny config, exports it with its answers and checks the export from outside: the lint of
# ../shared/kit/check_export.py always, and, where JAZARI_PYTHON names an interpreter with transformers, logits,
# log-likelihoods, greedy texts and token ids. JAZARI_BACKENDS names more servers of that script.
# usage: check-export.sh [RUN]   (a run directory; without one the tiny config is trained)
set -euo pipefail
cd "$(dirname "$0")/.."
kit=../shared/kit/check_export.py
jazari="${JAZARI_BIN:-${CARGO_TARGET_DIR:-target}/debug/jazari}"
[ -x "$jazari" ] || cargo build --workspace --bins
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
run="${1:-}"
if [ -z "$run" ]; then
  run="$work/run"
  "$jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=$work/data"
  "$jazari" train configs/ci-tiny.yaml --set "output_dir=$run" --set "datasets=[{path: $work/data}]"
fi
"$jazari" export "$run" --to hf --out "$work/model/hf" --reference "$work/model/expected"
"$jazari" parity "$work/model"
if [ ! -f "$kit" ]; then
  echo "SKIPPED: ../shared is absent, the export was not checked from outside"
  exit 0
fi
python="${JAZARI_PYTHON:-.venv-export/bin/python}"
if [ ! -x "$python" ]; then
  python3 -m venv .venv-export
  .venv-export/bin/pip install --quiet tokenizers safetensors numpy jinja2
fi
backends=lint
if [ -n "${JAZARI_PYTHON:-}" ]; then
  backends="${JAZARI_BACKENDS:-lint,transformers}"
else
  echo "SKIPPED: JAZARI_PYTHON is not set, the export was not opened in transformers"
fi
for name in TRANSFORMERS MISTRALRS VLLM; do export "CHECK_PY_$name=$python"; done
"$python" "$kit" "$work/model/hf" --backends "$backends" --strict
