#!/usr/bin/env bash
# Kills, stops, cuts off and confuses processes of training runs, and prints what became of it as one table.
# JAZARI_CLUSTER_FAULTS is the number of SIGKILLs (200: about 20 minutes on two cores); the rest is in proportion.
set -euo pipefail
cd "$(dirname "$0")/.."
export JAZARI_CLUSTER_FAULTS="${JAZARI_CLUSTER_FAULTS:-200}"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
run() { cargo test --quiet --workspace "$@" -- --nocapture --test-threads 1 2>&1 | tee -a "$log" | grep -E "FAILED|panicked|SKIPPED|^  " || true; }
status=0
run_all() {
  run --lib cluster::tcp::faults && run --lib cluster::rendezvous::tests::a_flood
  run --test cluster_faults && run --test cluster_numbers
}
