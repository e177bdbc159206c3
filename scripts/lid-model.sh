#!/bin/sh
# Trains the model of languages that is embedded in the library, data-pipeline/src/lid/model.jzlid, from the corpora of
# ../shared (about a minute of one core). doda-nc is left out: its licence forbids commercial use, the model is for all.
# The same corpora give the same bytes on the same kind of processor.
set -eu
cd "$(dirname "$0")/.."
corpora=${1:-../shared/corpora}
jazari=${JAZARI:-target/release/jazari}
"$jazari" data identify "$corpora"/*/data.jsonl --train --without doda-nc --out data-pipeline/src/lid/model.jzlid
