#!/usr/bin/env bash
# What NCCL has to show on a machine with NVIDIA GPUs: the checks over tensors on the device with one rank and with two
# (on one GPU where NCCL 2.30 or newer allows it), then the same losses, bit for bit, as over TCP.
# usage: scripts/nccl-check.sh JAZARI DATA OUT
set -euo pipefail
jazari="$(realpath "$1")" data="$(realpath "$2")" out="$(realpath -m "$3")/nccl" failed=0
cd "$(dirname "$0")/.." && mkdir -p "$out"
export NCCL_MULTI_RANK_GPU_ENABLE=1
device=local
if [ "$(nvidia-smi -L | wc -l)" -lt 2 ]; then device=cuda:0; fi

JAZARI_SELFTEST_DEVICE="$device" "$jazari" selftest --processes 2 --json > "$out/selftest.jsonl" || true
python3 - "$out/selftest.jsonl" <<'PYTHON' || failed=1
import json, sys
rows, bad = [json.loads(line) for line in open(sys.argv[1])], 0
wanted = [r for r in rows if r["check"] == "collectives" or r["check"].startswith("nccl")]
for row in wanted:
    shared = "use the same GPU" in row["result"]
    verdict = "NOT RUN" if shared else row["verdict"]
    print(f"{row['check']}: {verdict}: {row['result']}")
    bad += not shared and row["verdict"] != "ok"
sys.exit(bad > 0 or len(wanted) < 2)
PYTHON

# `auto` gives every process a GPU of its own where there are enough, else they share.
for engine in tcp nccl; do
  "$jazari" launch --nproc 2 --max-restarts 0 -- train configs/ci-tiny.yaml --set "output_dir=$out/$engine" \
    --set "datasets=[{path: $data}]" --set device=auto --set "cluster.engine=$engine" --set reduction=exact || failed=1
done
python3 - "$out/tcp/metrics.jsonl" "$out/nccl/metrics.jsonl" <<'PYTHON' || failed=1
import json, sys
read = lambda path: {r["step"]: r["loss"] for r in map(json.loads, open(path)) if "loss" in r}
tcp, nccl = map(read, sys.argv[1:])
differ = [s for s in tcp if tcp[s] != nccl.get(s)]
print(f"tcp and nccl: {len(tcp)} steps, {len(differ)} losses differ{f', first at step {differ[0]}' if differ else ''}")
sys.exit(bool(differ) or not tcp)
PYTHON
exit "$failed"
