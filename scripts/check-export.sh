#!/usr/bin/env bash
# Trains the tiny config, exports it, and opens the export with ../shared/kit/check_export.py: always with its lint and
# mistral.rs (one small wheel), with transformers too when JAZARI_PYTHON names an interpreter that has it.
# usage: check-export.sh [EXPORT_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
kit=../shared/kit/check_export.py
if [ ! -f "$kit" ]; then
  echo "SKIPPED: ../shared is absent, no export was opened in a real server"
  exit 0
fi
if [ -n "${JAZARI_PYTHON:-}" ]; then
  python="$JAZARI_PYTHON"
  backends=lint,transformers,mistralrs
else
  if [ ! -x .venv-export/bin/python ]; then
    python3 -m venv .venv-export
    .venv-export/bin/pip install --quiet mistralrs tokenizers safetensors numpy jinja2
  fi
  python=.venv-export/bin/python
  backends=lint,mistralrs
fi
export_dir="${1:-}"
if [ -z "$export_dir" ]; then
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
  jazari() { cargo run --quiet -p trainer -- "$@"; }
  jazari data prepare configs/ci-tiny-data.yaml --set "output_dir=$work/data"
  jazari train configs/ci-tiny.yaml --set "output_dir=$work/run" --set "datasets=[{path: $work/data}]"
  export_dir="$work/export"
  jazari export "$work/run" --to hf --out "$export_dir"
fi
"$python" "$kit" "$export_dir" --backends "$backends"
