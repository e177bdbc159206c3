#!/usr/bin/env bash
# Serves exports with llama.cpp's server and asks it over its OpenAI-compatible API: greedy texts must be those of
# `jazari generate`. Then opens the exports in transformers, llama.cpp and mistral.rs through the check of ../shared/kit.
# JAZARI_PYTHON names an interpreter with xllamacpp (and transformers, mistralrs); without it a small environment with
# xllamacpp alone is made.   usage: serve-check.sh [HF_DIR...]   (default: the fixtures in ../shared)
set -euo pipefail
cd "$(dirname "$0")/.."
fixtures="${JAZARI_SHARED:-../shared}/fixtures"
kit="${JAZARI_SHARED:-../shared}/kit/check_export.py"
jazari="${JAZARI_BIN:-${CARGO_TARGET_DIR:-target}/debug/jazari}"
[ -x "$jazari" ] || cargo build --workspace --bins
python="${JAZARI_PYTHON:-.venv-export/bin/python}"
if [ ! -x "$python" ]; then
  python3 -m venv .venv-export
fi
"$python" -c "import xllamacpp, numpy" 2>/dev/null || "$python" -m pip install --quiet xllamacpp numpy tokenizers safetensors jinja2 || {
  echo "SKIPPED: xllamacpp cannot be installed, no server was asked"; exit 0; }
if [ $# = 0 ]; then
  [ -d "$fixtures" ] || { echo "SKIPPED: ../shared is absent, no model to serve"; exit 0; }
  set -- "$fixtures"/{llama,qwen2,qwen3,gemma2,gemma3,mistral}/hf # a first token of llama_rope3 is half a character: the server sends nothing for it
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
for name in TRANSFORMERS XLLAMACPP MISTRALRS; do export "CHECK_PY_$name=$python"; done
failed=0
for hf in "$@"; do
  name="$(basename "$(dirname "$hf")")"
  printf '\n== %s\n' "$name"
  mkdir -p "$work/$name"
  "$jazari" export "$hf" --to hf --out "$work/$name/hf"
  "$jazari" export "$hf" --to gguf --out "$work/$name/gguf"
  gguf="$(echo "$work/$name"/gguf/*.gguf)"
  "$jazari" verify "$work/$name/hf" >/dev/null && "$jazari" verify "$gguf" >/dev/null || failed=1
  "$python" scripts/serve_check.py "$jazari" "$work/$name/hf" "$gguf" 2>&1 | grep -E "^(ok|FAIL|[A-Za-z]*Error)" || failed=1
  if [ -f "$kit" ] && [ -d "$hf/../expected" ]; then
    "$python" "$kit" "$work/$name/hf" --gguf "$gguf" --expected "$hf/../expected" \
      --backends "${JAZARI_BACKENDS:-lint,transformers,xllamacpp,mistralrs}" | grep -v '^ *$' || failed=1
  fi
done
exit "$failed"
