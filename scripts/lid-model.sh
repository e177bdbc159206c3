#!/bin/sh
# Trains the model of languages that is embedded in the library, data-pipeline/src/lid/model.jzlid, from the corpora of
# ../shared (about a minute of one core). doda-nc is left out: its licence forbids commercial use, the model is for all.
# The same corpora and marker lists give the same bytes. With --check nothing is replaced: the script fails when the
# embedded file is not what the recipe makes.
#   scripts/lid-model.sh [--check] [CORPORA]
set -eu
cd "$(dirname "$0")/.."
model=data-pipeline/src/lid/model.jzlid
check=
if [ "${1:-}" = --check ]; then check=yes; shift; fi
corpora=${1:-../shared/corpora}
jazari=${JAZARI:-target/release/jazari}
made=$(mktemp)
trap 'rm -f "$made"' EXIT
"$jazari" data identify "$corpora"/*/data.jsonl --train --without doda-nc --out "$made"
if [ -z "$check" ]; then
  cp "$made" "$model"
elif cmp "$made" "$model"; then
  echo "$model is what the recipe makes"
else
  echo "$model is not what the recipe makes: run scripts/lid-model.sh and commit it" >&2
  exit 1
fi
