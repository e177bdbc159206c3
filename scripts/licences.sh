#!/bin/sh
# Prints what goes into the program of a release and under which licences: every crate with its licence and address, then each
# licence text once, with the crates that carry it. A crate that carries none is named by itself, not passed over.
#   scripts/licences.sh [FEATURES] > THIRD-PARTY.txt
set -eu
cd "$(dirname "$0")/.."
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo tree --locked -p trainer ${1:+--features "$1"} -e normal --target "${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}" \
  --prefix none --format '{p}|{l}|{r}' | sed 's/ (\*)$//' | grep -v "($PWD" | sort -u > "$work/crates"
mkdir "$work/texts"
while IFS='|' read -r crate licence address; do
  name=${crate%% *}
  version=$(echo "$crate" | sed 's/^[^ ]* v\([^ ]*\).*/\1/')
  printf '%s %s: %s, %s\n' "$name" "$version" "$licence" "$address"
  found=
  for file in "$sources"/*/"$name-$version"/[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]* "$sources"/*/"$name-$version"/COPYING* "$sources"/*/"$name-$version"/NOTICE*; do
    [ -f "$file" ] || continue
    found=yes
    # Line ends and blanks at them make no other text.
    sed 's/[[:space:]]*$//' "$file" > "$work/text"
    digest=$(sha256sum "$work/text" | cut -c 1-16)
    [ -e "$work/texts/$digest" ] || cp "$work/text" "$work/texts/$digest"
    echo "$name $version" >> "$work/texts/$digest.of"
  done
  [ -n "$found" ] || echo "$name $version ($licence)" >> "$work/without"
done < "$work/crates"
if [ -s "$work/without" ]; then
  printf '\nThese carry no text of their own; their licence is the one named above:\n'
  sed 's/^/  /' "$work/without"
fi
for text in "$work"/texts/????????????????; do
  printf '\n%s\n' "================================================================================"
  sort -u "$text.of" | paste -s -d ',' | sed 's/,/, /g' | fold -s -w 120
  printf '%s\n\n' "--------------------------------------------------------------------------------"
  cat "$text"
done
