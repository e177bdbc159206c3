#!/usr/bin/env bash
# Kills, stops, cuts off and confuses the processes of training runs and prints what became of it as one table.
# JAZARI_CLUSTER_FAULTS is the number of SIGKILLs (200: about 20 minutes on two cores); the rest is in proportion.
set -euo pipefail
cd "$(dirname "$0")/.."
export JAZARI_CLUSTER_FAULTS="${JAZARI_CLUSTER_FAULTS:-200}"
log="$(mktemp)" failed=0
trap 'rm -f "$log"' EXIT
faults() { # the kind of test program, then which tests of it
  cargo test --workspace "$@" -- --nocapture --test-threads 1 >> "$log" 2>&1 || failed=1
}
echo "building"
cargo test --workspace --lib --test suite --no-run > "$log" 2>&1 || { cat "$log"; exit 1; }
echo "$JAZARI_CLUSTER_FAULTS kills and what belongs to them; $(nproc) cores, load $(cut -d ' ' -f 1 /proc/loadavg)"
: > "$log"
faults --lib cluster::tcp::faults cluster::rendezvous::tests
faults --test suite cluster_faults::
faults --test suite cluster_numbers::
cat << 'END'

| fault | number | hangs | lost checkpoints | wrong rank named | named after, s (p50 / p99 / max) | restart to first step, s (p50 / p99 / max) | same bits |
|---|---|---|---|---|---|---|---|
END
grep "^| " "$log"
grep -E "the last member joins|after the second signal|SKIPPED|^test result" "$log"
[ "$failed" = 0 ] || { grep -E "panicked|^test .*FAILED" -A 20 "$log"; echo "FAILED after $SECONDS s"; exit 1; }
echo "nothing failed; $SECONDS s"
