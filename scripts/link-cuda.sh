#!/usr/bin/env bash
# Builds and links the release binary with the feature `cuda`, on a machine that needs no GPU, no CUDA toolkit and no LLVM,
# and asks it what it says where there is no driver. About 25 CPU-minutes when cold.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p trainer --features cuda --bin jazari
jazari="${CARGO_TARGET_DIR:-target}/release/jazari" work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
echo "linked: $(stat -c %s "$jazari") bytes, $(ldd "$jazari" | wc -l) libraries, none of them CUDA's"
if ldd "$jazari" | grep -qE "libcuda|libnvrtc|libnccl"; then echo "FAILED: CUDA must be found at run time"; exit 1; fi
if command -v nvidia-smi > /dev/null; then echo "this machine has a driver: go on with scripts/gpu-check.sh"; exit 0; fi
"$jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=$work/data" > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
train() { "$jazari" "$@" --set "output_dir=$work/run" --set "datasets=[{path: $work/data}]" > "$work/log" 2>&1; }
refused() { # what is expected in the message, then the command; exit code 2 and nothing written
  local code=0 expected="$1"; shift
  train "$@" || code=$?
  [ "$code" = 2 ] && grep -q "$expected" "$work/log" && [ ! -e "$work/run" ] || { cat "$work/log"; echo "FAILED: code $code"; exit 1; }
  grep -m 1 "$expected" "$work/log"
}
refused "error.J0602.: .cuda:0. cannot be used: no NVIDIA driver was found" train configs/ci-tiny.yaml --set device=cuda:0
refused "cannot use NCCL" launch --nproc 2 --max-restarts 0 -- train configs/ci-tiny.yaml --set cluster.engine=nccl
train train configs/ci-tiny.yaml || { cat "$work/log"; exit 1; }
tail -n 2 "$work/log"
