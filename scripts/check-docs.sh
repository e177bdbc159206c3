#!/usr/bin/env bash
# Runs the commands of the guide: every block that begins with "```sh", page after page, each in a fresh copy of the folder
# that docs-world.sh makes. Left out are only the lines that build, install or test the program, and one that takes a
# benchmark from elsewhere. Two hosts are two groups of processes here. Pages in other languages have the same commands
# as the English ones (a tidy test compares them); their first pages have their own and are run too.
#   scripts/check-docs.sh [PAGE...]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
jazari=$(realpath "${JAZARI:-${CARGO_TARGET_DIR:-target}/release/jazari}")
[ $# -gt 0 ] || set -- README.md docs/guide/*.md docs/guide/fr/premier-modele.md docs/guide/ar/awwal-namudhaj.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$jazari" "$work/bin/jazari"
export PATH="$work/bin:$PATH"
echo "making what the pages take for granted"
"$root/scripts/docs-world.sh" "$work/world"
document=$(jazari data inspect "$work/world/data/moroccan" --limit 1 --json | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -n 1)

left_out='^(cargo|TARGET=|apt-get|alias|(\./)?scripts/(quickstart|test|release)\.sh|target/release/jazari --version|export PATH|.*/data/benchmarks)'
# One command a line, without its comment; hosts, documents and builds that are not here are replaced.
commands() {
  sed -n '/^ *```sh$/,/^ *```$/p' "$1" | grep -v '^ *```' | sed ':join; /\\$/{N; s/\\\n */ /; b join}' \
    | sed -E "s/(^| +)#( .*|SBATCH.*)?$//; s/node0:23456/127.0.0.1:29761/; s/0f3c\.\.\./$document/; s#(^| )target/release/jazari#\1jazari#; s/ && alias .*//" \
    | grep -vE "$left_out" | grep -v '^ *$'
}
# A script of the page: what serves or waits for others runs beside the next command, and must end well too.
script() {
  local line
  echo 'beside=""; all_well() { for one in $beside; do wait "$one"; done; beside=""; }'
  while IFS= read -r line; do
    printf 'echo %q\n' "+ $line"
    case $line in
      *"outer serve"* | *--node-rank* | *"outer={"*) printf '%s &\nbeside="$beside $!"\nsleep 1\n' "$line" ;;
      *) printf 'all_well\n%s\n' "$line" ;;
    esac
  done
  echo all_well
}
for page in "$@"; do
  commands "$page" > "$work/commands" || continue
  cp -R "$work/world" "$work/page"
  case $page in *cluster.md) rm -rf "$work/page/runs/first" ;; esac
  script < "$work/commands" > "$work/script"
  if ! (cd "$work/page" && HOME=$PWD PATH="$PWD/bin:$PATH" timeout 600 bash -eu "$work/script") > "$work/log" 2>&1 < /dev/null; then
    cat "$work/log" >&2
    echo "$page: the last command above fails" >&2
    exit 1
  fi
  echo "$page: $(wc -l < "$work/commands") commands"
  rm -rf "$work/page"
done
