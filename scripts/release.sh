#!/bin/sh
# Builds what is handed out, one archive a flavour, in release/: the program without its symbols, its licences and those of its
# crates, recipes, the guide, manual pages, completions, the bill of materials; and SHA256SUMS over the archives. The same commit and toolchain give the
# same archive. TARGET names another target that cargo and its linker can build for (aarch64-unknown-linux-gnu).
#   scripts/release.sh [cpu] [cuda] [wgpu]
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- cpu
host=$(rustc -vV | sed -n 's/^host: //p')
target=${TARGET:-$host}
elsewhere=${TARGET:+--target $TARGET}
# Debian's cross compiler (gcc-aarch64-linux-gnu, g++-aarch64-linux-gnu); on an Arm machine these names are its own.
if [ "$target" = aarch64-unknown-linux-gnu ] && command -v aarch64-linux-gnu-gcc > /dev/null; then
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
built=${CARGO_TARGET_DIR:-target}/${TARGET:+$TARGET/}release/jazari
mkdir -p release
for flavour in "$@"; do
  what="-p trainer --features $flavour"
  [ "$flavour" != cpu ] || what=--workspace
  # shellcheck disable=SC2086
  cargo build --release --locked --bin jazari $what $elsewhere
  name=jazari-$version-$target-$flavour
  rm -rf "release/$name"
  mkdir -p "release/$name/bin" "release/$name/completions"
  cp "$built" "release/$name/bin/jazari"
  cp -R LICENSE-* README.md CHANGELOG.md configs docs samples "release/$name/"
  features=$flavour
  [ "$flavour" != cpu ] || features=
  TARGET=$target scripts/licences.sh "$features" > "release/$name/THIRD-PARTY.txt"
  # The program of another target is asked through an emulator, or not at all.
  ask=$built
  [ "$target" = "$host" ] || ask="qemu-${target%%-*} -L /usr/${target%%-*}-linux-gnu $built"
  if $ask --version > /dev/null 2>&1; then
    for shell in bash zsh fish; do $ask completions "$shell" > "release/$name/completions/jazari.$shell"; done
    $ask man --out "release/$name/man1" 2> /dev/null
    $ask sbom > "release/$name/sbom.cdx.json"
  else
    echo "SKIPPED: manual pages, completions and the bill of materials of $name: its program does not run here" >&2
  fi
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -C release -cf - "$name" \
    | gzip -9n > "release/$name.tar.gz"
  rm -rf "release/$name"
done
cd release
sha256sum jazari-*.tar.gz > SHA256SUMS
cat SHA256SUMS
