#!/usr/bin/env bash
# packaging/static.sh NAME LIMIT ARCH… [-- CARGO'S ARGUMENTS]: `rk` as dist/NAME-ARCH-linux-musl, one static file of at most
# LIMIT bytes, with its bill of materials beside it and its sum in dist/SHA256SUMS. `make static` and `make static-agent` call it.
#
# Zig is the C compiler and the linker for both architectures and brings musl. Rust's standard library comes from rustup
# if it has the target, else it is compiled from Debian's source package, with the compiler of the same version.
set -euo pipefail
cd "$(dirname "$0")/.."

ZIGBUILD=0.24.1
ZIG=0.15.2

fail() { echo "packaging/static.sh: $*" >&2; exit 1; }

name=$1 limit=$2
shift 2
arches=() features=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do arches+=("$1"); shift; done
[ $# -eq 0 ] || { shift; features=("$@"); }

target_dir=${CARGO_TARGET_DIR:-$PWD/target}
tools=$target_dir/static-tools
dist=dist

for tool in python3 readelf sha256sum; do
  command -v $tool >/dev/null || fail "$tool is missing: apt-get install python3 binutils coreutils"
done
if [ "$(cat "$tools/versions" 2>/dev/null)" != "$ZIGBUILD $ZIG" ]; then
  rm -rf "$tools"
  python3 -m venv "$tools" || fail "python3 makes no virtual environment: apt-get install python3-venv"
  "$tools/bin/pip" install --quiet --disable-pip-version-check cargo-zigbuild==$ZIGBUILD ziglang==$ZIG \
    || fail "cargo-zigbuild $ZIGBUILD and ziglang $ZIG cannot be fetched from PyPI: set PIP_INDEX_URL where it is mirrored"
  echo "$ZIGBUILD $ZIG" >"$tools/versions"
fi
export PATH="$tools/bin:$PATH" CARGO_TARGET_DIR="$target_dir"

# Paths of this machine are nobody's business, and would make each machine's programs different ones.
cargo fetch --quiet --locked
flags=()
for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do flags+=("--remap-path-prefix=${crates%/}=crates"); done

# A program that aborts unwinds nothing.
flags+=(-C force-unwind-tables=no)

targets=()
for arch in "${arches[@]}"; do targets+=(--target "$arch-unknown-linux-musl"); done

# Both architectures at once: the last step of each is one thread that takes minutes.
zigbuild() { # CARGO'S ARGUMENTS
  local IFS=$'\x1f'
  CARGO_ENCODED_RUSTFLAGS="${flags[*]}" cargo zigbuild --locked --profile dist --bin rk "${targets[@]}" "$@" "${features[@]}"
}

installed=$(rustup target list --installed 2>/dev/null || true)
missing=()
for arch in "${arches[@]}"; do grep -qx "$arch-unknown-linux-musl" <<<"$installed" || missing+=("$arch-unknown-linux-musl"); done
if [ ${#missing[@]} = 0 ]; then
  zigbuild
else
  library=$(/usr/bin/rustc --print sysroot 2>/dev/null || true)/lib/rustlib/src/rust/library
  [ -e "$library/Cargo.lock" ] \
    || fail "there is no standard library: rustup target add ${missing[*]}; or on Debian: apt-get install rustc-web rust-web-src"
  flags+=("--remap-path-prefix=$library=std" -C link-self-contained=no)
  # The compiler's version is the library's, and building that is a feature of cargo's that only compilers of the day have.
  export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
  zigbuild -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size
  unset RUSTC RUSTC_BOOTSTRAP
fi

mkdir -p $dist
for arch in "${arches[@]}"; do
  file=$dist/$name-$arch-linux-musl
  cp "$target_dir/$arch-unknown-linux-musl/dist/rk" "$file.new"
  if readelf -lW "$file.new" | grep -q INTERP || readelf -dW "$file.new" | grep -q NEEDED; then
    fail "$file.new is not static: readelf -ld shows what it asks for"
  fi
  size=$(stat -c %s "$file.new")
  [ "$size" -le "$limit" ] || fail "$file.new has $size bytes, and may have $limit"
  mv "$file.new" "$file"
  packaging/sbom.py "$file" "$arch-unknown-linux-musl" "${features[@]}" >"$file.cdx.json"
  echo "$file: $size bytes of at most $limit"
done
(cd $dist && sha256sum rk-*-linux-musl* >SHA256SUMS)
