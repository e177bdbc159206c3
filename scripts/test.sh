#!/usr/bin/env bash
# Installs what the tests need and runs all of them: format, lints (with the GPU features), unit and integration tests,
# shards and an export read from outside, the engine over MPI, mpirun, torchrun and four hosts as network namespaces, the quickstart, the commands of the guide. JAZARI_KILLS sets the number of kill -9 in the crash test (200).
# What cannot run on a machine is printed as SKIPPED with the reason.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! { command -v ip && mpicc -E -include mpi.h -x c /dev/null; } >/dev/null 2>&1; then
  apt-get install -y -qq iproute2 openmpi-bin libopenmpi-dev libclang-dev >/dev/null 2>&1 || echo "iproute2 and Open MPI could not be installed"
fi

step "format, lints"
cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings

step "unit and integration tests"
export JAZARI_KILLS="${JAZARI_KILLS:-200}"
# The same cases of every property on every machine; scripts/properties.sh looks for new ones.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"
runner="test"
cargo nextest --version >/dev/null 2>&1 && runner="nextest run"
cargo $runner --workspace --no-run
# Without any network but this machine's own loopback: nothing may need another.
alone() { unshare --net sh -c 'ip link set lo up && exec "$@"' sh "$@"; }
alone true 2>/dev/null || { echo "SKIPPED: no network namespace here, the tests have the network"; alone() { "$@"; }; }
alone cargo $runner --workspace --offline --no-fail-fast

step "GPU features: lints"
cargo clippy -p trainer --features cuda --all-targets -- -D warnings
cargo clippy -p trainer --features wgpu --all-targets -- -D warnings

step "licences and advisories"
if cargo deny --version >/dev/null 2>&1; then
  cargo deny check licenses bans sources
else
  echo "SKIPPED: cargo-deny is not installed"
fi

step "token shards and event files in other readers"
export JAZARI="${CARGO_TARGET_DIR:-target}/debug/jazari"
PACKAGES=no ./scripts/shard-readers-check.sh
./scripts/tensorboard-check.sh

step "exports in real servers"
./scripts/check-export.sh

step "other launchers, several hosts, the engine over MPI"
./scripts/cluster-check.sh
./scripts/mpi-check.sh

step "quickstart"
quickstart="$(mktemp -d)"
trap 'rm -rf "$quickstart"' EXIT
JAZARI_BIN=$JAZARI alone ./scripts/quickstart.sh "$quickstart"

step "the commands of the guide"
./scripts/check-docs.sh

step "all tests passed"
