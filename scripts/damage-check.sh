#!/usr/bin/env bash
# Exports a fixture, makes the twelve damaged copies of ../shared/kit/make_corrupt.py and prints who notices each:
# `jazari verify` with and without the record of the export, and the check of ../shared/kit with real servers.
# JAZARI_PYTHON names an interpreter with torch and safetensors (and mistralrs).   usage: damage-check.sh [HF_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
shared="${JAZARI_SHARED:-../shared}"
jazari="${JAZARI_BIN:-${CARGO_TARGET_DIR:-target}/debug/jazari}"
python="${JAZARI_PYTHON:-}"
if [ ! -d "$shared/kit" ] || [ -z "$python" ]; then
  echo "SKIPPED: ../shared is absent or JAZARI_PYTHON is not set, no export was damaged"
  exit 0
fi
source="${1:-$shared/fixtures/llama/hf}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/sound"
"$jazari" export "$source" --to hf --out "$work/sound/hf" >/dev/null
ln -s "$(realpath "$source/../expected")" "$work/sound/expected"
"$python" "$shared/kit/make_corrupt.py" "$work/sound/hf" "$work/damaged" >/dev/null
export CHECK_PY_MISTRALRS="$python" CHECK_PY_TRANSFORMERS="$python"
backends="${JAZARI_BACKENDS:-lint,mistralrs}"
notices() { if "$@" >"$work/said" 2>&1; then echo "-"; else echo "yes"; fi; }
failed=0
printf '| damage | jazari verify | jazari verify, by itself | %s | what it says |\n|---|---|---|---|---|\n' "$backends"
for copy in "$work/sound" "$work"/damaged/*; do
  name="$(basename "$copy")"
  kit="$(notices "$python" "$shared/kit/check_export.py" "$copy/hf" --backends "$backends")"
  verified="$(notices "$jazari" verify "$copy/hf")"
  said="$(grep -m1 '^FAIL' "$work/said" | cut -c6-110 | sed "s#$work/##" || true)"
  rm -f "$copy/hf/jazari_export.json"
  alone="$(notices "$jazari" verify "$copy/hf")"
  printf '| %s | %s | %s | %s | %s |\n' "$name" "$verified" "$alone" "$kit" "$said"
  wanted=yes
  [ "$name" != sound ] || wanted=-
  [ "$verified" = "$wanted" ] && [ "$kit" = "$wanted" ] || failed=1
done
exit "$failed"
