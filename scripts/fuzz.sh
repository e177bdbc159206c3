#!/usr/bin/env bash
# Runs every fuzz target for so many seconds, one after the other, with the stable toolchain; libFuzzer needs a C++ compiler.
# usage: scripts/fuzz.sh [SECONDS [TARGET...]]        FUZZ_TARGET_DIR: where to build, FUZZ_CORPUS: where inputs are kept
# What a target fails on is kept in fuzz/artifacts/TARGET-*; `BINARY FILE` runs it again.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}
shift || true
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/target}
corpus=${FUZZ_CORPUS:-$PWD/corpus}
# The coverage that libFuzzer steers by. Given for the host by its name, so that build scripts are built without.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-trace-compares"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS="$coverage --cfg fuzzing" cargo build --release --target "$host" --features libfuzzer --bins
binaries=$CARGO_TARGET_DIR/$host/release
mkdir -p artifacts
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=($(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"|\1|p' Cargo.toml))
failed=()
for target in "${targets[@]}"; do
    log=$(mktemp)
    JAZARI_FUZZ_SEEDS="$corpus/$target" "$binaries/$target" -runs=1 > "$log" 2>&1
    # Allocations that no machine has fail, instead of being promised.
    if (ulimit -v 8000000; "$binaries/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=65536 \
        -artifact_prefix="artifacts/$target-" "$corpus/$target") > "$log" 2>&1; then
        echo "$target: $(grep -oE 'Done [0-9]+ runs in [0-9]+ second' "$log" | tail -1), $(grep -oE 'cov: [0-9]+' "$log" | tail -1)"
    else
        failed+=("$target")
        echo "$target: FAILED" && tail -40 "$log"
    fi
    rm -f "$log"
done
rm -rf "${TMPDIR:-/tmp}"/jazari-fuzz-[0-9]*
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
