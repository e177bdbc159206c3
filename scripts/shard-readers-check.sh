#!/usr/bin/env bash
# Token shards are read as Megatron-LM and as datatrove read them, and every token is compared:
#
#   scripts/shard-readers-check.sh                # the sample data, prepared for the check
#   scripts/shard-readers-check.sh DATASET        # a data set of your own
#
# Needs Python 3.9 or later and numpy, which it installs into an environment of its own; the packages datatrove and
# megatron-core join in where they and PyTorch can be installed (PACKAGES=no leaves them out). VENV names the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

jazari="${JAZARI:-target/release/jazari}"
[ -x "$jazari" ] || jazari="${CARGO_TARGET_DIR:-target}/debug/jazari"
[ -x "$jazari" ] || { echo "no binary; run: cargo build --release --workspace --bin jazari" >&2; exit 2; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
venv="${VENV:-$work/venv}"
if ! "$venv/bin/python" -c 'import numpy' 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet numpy; } 2>"$work/pip.log"; then
        tail -3 "$work/pip.log" >&2
        echo "SKIPPED: pip cannot install numpy, so this check looked at NOTHING" >&2
        exit 0
    fi
fi
skip() { echo "SKIPPED: $1 cannot be installed; its layout is read by our own code only" >&2; }
if [ "${PACKAGES:-yes}" = yes ]; then
    pip() { "$venv/bin/pip" install --quiet "$@" 2>"$work/pip.log"; }
    "$venv/bin/python" -c 'import torch' 2>/dev/null || pip torch || skip torch
    pip datatrove fsspec loguru || skip datatrove
    pip --no-deps megatron-core || skip megatron-core
fi

data="${1:-}"
if [ -z "$data" ]; then
    data="$work/data"
    "$jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=\"$data\"" --set shards.max_tokens=4000 >/dev/null
fi
for form in megatron datatrove; do
    "$jazari" data convert "$data" --to "$form" --out "$work/$form" >/dev/null
done
"$venv/bin/python" data-pipeline/tests/shard_readers.py "$data" "$work"
