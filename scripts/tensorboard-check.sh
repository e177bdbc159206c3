#!/usr/bin/env bash
# The event files of a run that was stopped and went on are read as TensorBoard reads them, and every number is compared with
# metrics.jsonl. Needs Python 3.9 or later and the package tensorboard, which it installs into an environment of its own.
#   scripts/tensorboard-check.sh
set -euo pipefail
cd "$(dirname "$0")/.."
jazari="${JAZARI:-target/release/jazari}"
[ -x "$jazari" ] || jazari="${CARGO_TARGET_DIR:-target}/debug/jazari"
[ -x "$jazari" ] || { echo "no binary; run: cargo build --release --workspace --bin jazari" >&2; exit 2; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
venv="${VENV:-$work/venv}"
if ! "$venv/bin/python" -c 'import tensorboard' 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet tensorboard 'setuptools<81'; } 2>"$work/pip.log"; then
        tail -3 "$work/pip.log" >&2
        echo "SKIPPED: pip cannot install tensorboard, so this check looked at NOTHING" >&2
        exit 0
    fi
fi
"$jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=\"$work/data\"" > "$work/log" 2>&1
train() {
    "$jazari" train configs/ci-tiny.yaml --set "output_dir=\"$work/run\"" --set "datasets=[{path: \"$work/data\"}]" \
        --set 'expect={}' --set logging_steps=1 --set tensorboard=true "$@" >> "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
}
# Stopped between two checkpoints: what was done after the last one is done again, and shown once.
train 2> /dev/null &
while ! grep -qs '"step":17' "$work/run/metrics.jsonl"; do sleep 0.02; done
pkill -KILL -f "$work/run" || true
wait 2> /dev/null || true
train
"$jazari" inspect "$work/run" --tensorboard "$work/made"
"$venv/bin/python" trainer/tests/tensorboard_reader.py "$work/run/metrics.jsonl" "$work/run/tensorboard" "$work/made"
