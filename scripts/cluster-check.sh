#!/usr/bin/env bash
# The tiny config on processes started by mpirun, by torchrun (also with a rank killed on the way), and on four hosts
# (network namespaces; also with one cut off on the way): all must end with the state of one process, to the bit.
# SKIPPED names what cannot run here. JAZARI_BIN is the program, JAZARI_PYTHON has PyTorch; the hosts need root.
set -euo pipefail
cd "$(dirname "$0")/.."
jazari="$(realpath -m "${JAZARI_BIN:-${CARGO_TARGET_DIR:-target}/debug/jazari}")"
[ -x "$jazari" ] || cargo build --workspace --bins
work="$(mktemp -d)" net="jazari$$" pids=()
clean_up() {
  for signal in TERM KILL; do kill -s "$signal" "${pids[@]}" 2> /dev/null && sleep 3 || true; done
  for name in lan 0 1 2 3; do ip netns del "$net-$name" 2> /dev/null || true; done
  rm -rf "$work"
}
trap clean_up EXIT
fail() { echo "FAILED: $*"; tail -n 30 "$work"/*.log; exit 1; }
train() { # run, log, what starts the program
  "${@:3}" train configs/ci-tiny.yaml --set "output_dir=$work/$1" --set "datasets=[{path: $work/data}]" \
    --set max_steps=120 --set save_total_limit=100 --set cluster.peer_timeout=2 > "$work/$2.log" 2>&1
}
digest() { sed -n 's/ *"state_digest": "\(.*\)",/\1/p' "$work/$1/checkpoints/step-00000120/MANIFEST.json"; }
same() { [ "$(digest "$1")" = "$(digest one)" ] || fail "$1 ends with $(digest "$1")"; echo "ok ($SECONDS s): $1"; }
await() { local end=$((SECONDS + 60)); until "$@"; do [ "$SECONDS" -lt "$end" ] || fail "not in 60 s: $*"; sleep 0.05; done; }
(umask 077; head -c 32 /dev/urandom | base64 > "$work/token"); export JAZARI_TOKEN_FILE="$work/token"
"$jazari" data prepare configs/ci-tiny-data.yaml --set "output_dir=$work/data" > "$work/data.log" 2>&1 || fail "data prepare"
train one one "$jazari" && [ -n "$(digest one)" ] && echo "one process: state $(digest one)" || fail "one process"
if mpirun --version 2> /dev/null | grep -q "Open MPI"; then
  train mpirun mpirun mpirun -n 4 --oversubscribe --allow-run-as-root "$jazari" && same mpirun || fail "mpirun"
else echo "SKIPPED: there is no mpirun of Open MPI"; fi
if "${JAZARI_PYTHON:-false}" -c "import torch.distributed.run" 2> /dev/null; then
  torchrun=("$JAZARI_PYTHON" -m torch.distributed.run --no-python --nproc-per-node 2 --max-restarts 2 "$jazari")
  train torchrun torchrun "${torchrun[@]}" && same torchrun || fail "torchrun"
  (train kill kill exec "${torchrun[@]}") & pids=($!)
  await test -d "$work/kill/checkpoints/step-00000040" && kill -KILL "$(pgrep -P "${pids[0]}" | tail -n 1)"
  wait "${pids[0]}" && grep -q "restart 1; from torchrun" "$work/kill.log" && same kill || fail "torchrun, a rank killed"
else echo "SKIPPED: JAZARI_PYTHON names no interpreter with PyTorch, torchrun was not tried"; fi
why="$( (ip netns add "$net-lan" && ip -n "$net-lan" link add name lan up type bridge) 2>&1)" \
  || { echo "SKIPPED: no network namespaces, so no four hosts: $why"; exit 0; }
link() { ip -n "$net-lan" link set "host$1" "${@:2}"; }
for k in 0 1 2 3; do
  ip netns add "$net-$k" && ip -n "$net-lan" link add name "host$k" type veth peer name eth0 netns "$net-$k"
  link "$k" up master lan && ip -n "$net-$k" link set lo up && ip -n "$net-$k" link set eth0 up
  ip -n "$net-$k" addr add "10.77.0.$((k + 1))/24" dev eth0
done
launch=("$jazari" launch --nproc 1 --nnodes 4 --rendezvous 10.77.0.1:29400 --token "$JAZARI_TOKEN_FILE" --node-rank)
for run in hosts cut; do
  for k in 0 1 2 3; do
    named=(unshare --uts bash -c 'echo "host$0" > /proc/sys/kernel/hostname && exec "$@"' "$k")
    (train "$run" "$run-$k" exec ip netns exec "$net-$k" "${named[@]}" "${launch[@]}" "$k" --) & pids[k]=$!
  done
  if [ "$run" = cut ]; then
    await test -d "$work/cut/checkpoints/step-00000040" && link 2 down
    for k in 0 1 3; do await grep -q "error\[J0701\]: rank 2 (host host2, .* no heartbeats" "$work/cut-$k.log"; done
    for k in 0 1 3; do await grep -q "left with code 75" "$work/cut-$k.log"; done
    link 2 up
  fi
  for k in 0 1 2 3; do wait "${pids[k]}" && unset "pids[k]" || fail "$run: host $k"; done
  same "$run"
done
