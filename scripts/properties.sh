#!/usr/bin/env bash
# Looks for cases that break a property: the property tests with so many random cases and a new seed every time. The tests
# of scripts/test.sh take the same cases everywhere, so that a failure there is about the change at hand.
# usage: scripts/properties.sh [CASES [FILTER]]        FILTER: a filter of cargo nextest, such as 'test(normalize::)'
# What fails is printed with its smallest case; write it down as a test of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PROPTEST_RNG_SEED
export PROPTEST_CASES="${1:-10000}"
# A case of the order of rows is a whole data set: name it in a filter of its own, with fewer cases.
exec cargo nextest run --workspace --no-fail-fast -E "${2:-kind(lib) and not test(order::)}"
