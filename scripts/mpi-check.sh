#!/usr/bin/env bash
# The engine of collectives over MPI (feature `mpi`): its tests, which run the conformance suite on 1 to 4 processes,
# then the tiny config under mpirun. 2, 4 and 8 processes, and a run with another number of them at every resume, must
# end with the losses and the state of one process, to the bit. A rank that is killed or stopped must be named, and the
# job must end. SKIPPED names what is missing. Third-party crates are those of the default build.
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "SKIPPED: the engine over MPI was not checked: $1"; exit 0; }
mpirun --version 2> /dev/null | grep -q "Open MPI" || skip "there is no mpirun of Open MPI (openmpi-bin)"
mpicc -E -include mpi.h -x c /dev/null > /dev/null 2>&1 || skip "mpicc finds no mpi.h (libopenmpi-dev)"
clang=$(find "${LIBCLANG_PATH:-/usr/lib}" /usr/lib64 /usr/local/lib -maxdepth 3 -name 'libclang*.so*' 2> /dev/null | head -n 1)
[ -n "$clang" ] || skip "there is no libclang (libclang-dev), and LIBCLANG_PATH names none"
features=(--workspace --features trainer/mpi) target="${CARGO_TARGET_DIR:-target}" limit=120 work="$(mktemp -d)"
# Nobody shall take the program with the feature for the default one.
trap 'rm -rf "$work"; cargo build --workspace --bins --quiet' EXIT
fail() { echo "FAILED: $*"; tail -n 30 "$work"/*.log; exit 1; }
cargo build "${features[@]}" --bins && cp "$target/debug/jazari" "$work/jazari"
if cargo nextest --version > /dev/null 2>&1; then runner=(nextest run --no-fail-fast); else runner=(test); fi
cargo "${runner[@]}" "${features[@]}" --lib cluster::engine
train() { # run, log, processes
  exec mpirun -n "$3" --oversubscribe --allow-run-as-root --timeout "$limit" "$work/jazari" train configs/ci-tiny.yaml \
    --set "output_dir=$work/$1" --set "datasets=[{path: $work/data}]" --set micro_batch_size=1 --set max_steps=120 \
    --set logging_steps=1 --set save_steps=5 --set cluster.peer_timeout=2 > "$work/$2.log" 2>&1
}
result() {
  sed -n 's/ *"state_digest": "\(.*\)",/\1/p' "$work/$1/checkpoints/step-00000120/MANIFEST.json"
  sed -n 's/.*"step":\([0-9]*\),.*"loss":\([^,]*\),"lr".*/\1 \2/p' "$work/$1/metrics.jsonl"
}
same() {
  cmp <(result one) <(result "$1") || fail "$1 differs from one process"
  echo "ok ($SECONDS s): $1: $(result "$1" | wc -l) lines"
}
begin() { # run, log, processes, step to wait for
  (train "$1" "$2" "$3") & mpirun=$!
  local end=$((SECONDS + limit))
  until [ -d "$work/$1/checkpoints/$(printf 'step-%08d' "$4")" ]; do
    [ "$SECONDS" -lt "$end" ] && kill -0 "$mpirun" 2> /dev/null || fail "$2 never saved step $4"
    sleep 0.02
  done
}
rank() { pgrep -P "$mpirun" | sed -n "$1p"; }
(umask 077; head -c 32 /dev/urandom | base64 > "$work/token"); export JAZARI_TOKEN_FILE="$work/token"
"$work/jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=$work/data" > "$work/data.log" 2>&1 || fail "data prepare"
for n in 1 2 4 8; do
  name=(- one two - four - - - eight); name="${name[n]}"
  (train "$name" "$name" "$n") || fail "$n processes"
  [ "$n" = 1 ] || { grep -q '"engine":"mpi"' "$work/$name/events.jsonl" || fail "$n processes did not use MPI"; same "$name"; }
done
for cut in 4:10 2:30 1:50 8:70; do # a signal to one rank stops all of them at the same step
  begin cut "cut-${cut%:*}" "${cut%:*}" "${cut#*:}"
  kill -TERM "$(rank 1)"; wait "$mpirun" && grep -q "stopped at step" "$work/cut-${cut%:*}.log" || fail "resume at $cut"
done
(train cut cut-last 4) && same cut || fail "resume"
for signal in KILL STOP; do
  begin "lost-$signal" "lost-$signal" 4 10; victim="$(rank 3)"; sent=$SECONDS
  kill -s "$signal" "$victim"; wait "$mpirun" && fail "a lost rank and yet code 0"
  grep -q "error\[J0701\]: rank [0-3] (host .*, pid $victim) \(died\|sends no heartbeats\)" "$work/lost-$signal.log" || fail "SIG$signal"
  echo "ok ($SECONDS s): SIG$signal: the rank was named, the job ended within $((SECONDS - sent)) s"
done
