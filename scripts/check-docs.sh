#!/bin/sh
# Runs the commands of pages of the guide, one page after the other, each in a fresh folder that sees the recipes and the
# sample texts: every block that begins with "```sh", but for the lines that build or install. A command that fails ends
# the script with the page and the command. Without a page: the first ones in French and Arabic, and certificates; the first
# one in English, docs/guide/first-run.md, is what quickstart.sh does.
#   scripts/check-docs.sh [PAGE...]
set -eu
cd "$(dirname "$0")/.."
root=$PWD
jazari=${JAZARI:-${CARGO_TARGET_DIR:-target}/release/jazari}
jazari=$(realpath "$jazari")
[ $# -gt 0 ] || set -- docs/guide/fr/premier-modele.md docs/guide/ar/awwal-namudhaj.md docs/guide/certificates.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$jazari" "$work/bin/jazari"
PATH="$work/bin:$PATH"
for page in "$@"; do
  folder="$work/$(echo "$page" | tr / -)"
  mkdir "$folder"
  ln -s "$root/configs" "$root/samples" "$root/scripts" "$folder"
  # What the page takes for granted: a run of this name.
  if grep -q runs/darija "$page"; then
    if ! (cd "$folder" && jazari data prepare configs/quickstart-data.yaml && jazari train configs/quickstart.yaml \
      --set output_dir=runs/darija --set max_steps=4 --set warmup_steps=1 --set 'expect={}') > "$folder.log" 2>&1; then
      cat "$folder.log" >&2
      exit 1
    fi
  fi
  sed -n '/^```sh$/,/^```$/p' "$page" | grep -v '^```' | grep -vE '^(cargo|export PATH|scripts/)' > "$folder.sh"
  while IFS= read -r line; do
    [ -n "$line" ] || continue
    echo "$page: $line"
    if ! (cd "$folder" && sh -c "$line") > "$folder.log" 2>&1 < /dev/null; then
      cat "$folder.log" >&2
      echo "$page: this command of the guide fails: $line" >&2
      exit 1
    fi
  done < "$folder.sh"
done
