#!/usr/bin/env bash
# From a fresh clone to a small model that writes a line in every language of the sample corpus.
# Needs cargo and a C compiler; no GPU, no Python, no data from elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-quickstart}"

# JAZARI_BIN names a binary that is built already (the tests use their own).
jazari="${JAZARI_BIN:-${CARGO_TARGET_DIR:-target}/release/jazari}"
if [ -z "${JAZARI_BIN:-}" ]; then
  echo "1/5 building (the first time takes some minutes: the tensor library is large)"
  cargo build --release --workspace --bin jazari
fi

echo "2/5 preparing the sample corpus: samples/*.jsonl -> $out/data"
"$jazari" data prepare configs/quickstart-data.yaml --set "output_dir=$out/data"
"$jazari" data verify "$out/data"

echo "3/5 training: configs/quickstart.yaml -> $out/run (run it again to resume)"
"$jazari" train configs/quickstart.yaml --set "output_dir=$out/run" --set "datasets=[{path: $out/data}]"

echo "4/5 exporting: $out/export opens in transformers, vLLM, mistral.rs, llama.cpp's converter"
if [ -e "$out/export" ]; then
  echo "$out/export is there from an earlier run: checking it"
  "$jazari" verify "$out/export"
else
  "$jazari" export "$out/run" --to hf --out "$out/export"
fi

echo "5/5 a line in every language (a model of this size babbles: look at the script and the words it picked up)"
for prompt in "واش" "wach" "ⴰⵣⵓⵍ" "Le" "في"; do
  "$jazari" generate "$out/export" --prompt "$prompt" --max-tokens 24 --temperature 0.7 --seed 1
done

cat <<END

Done. Data set: $out/data (DATACARD.md)   run: $out/run (metrics.jsonl)   model: $out/export
Next: docs/guide/first-run.md explains what happened; configs/ holds larger recipes.
END
