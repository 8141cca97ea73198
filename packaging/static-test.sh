#!/usr/bin/env bash
# packaging/static-test.sh: each program in dist/ does the smoke part of the whole-system tests as an agent, in a root that holds
# nothing but the program and what a container from scratch has, against the static controller of this machine's
# architecture, which is in such a root as well. `make test-static` calls it.
#
# All of it happens in a user namespace, so nothing on this machine changes. There, programs of another architecture are run by
# qemu through binfmt_misc, of which such a namespace has one of its own. An agent executes its own program (shims, keepers): that is the
# kernel's to answer, which is why an agent that was started as `qemu-aarch64-static rk` goes online and can start nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "packaging/static-test.sh: $*" >&2; exit 1; }

here=$(uname -m)
rk=$PWD/dist/rk-$here-linux-musl
[ -x "$rk" ] || fail "$rk is not there: make static"

if [ "${1-}" != inside ]; then
  command -v unshare >/dev/null || fail "unshare is missing: apt-get install util-linux"
  cargo test --locked --all-features --test it --no-run
  work=$(mktemp -d)
  # What is mounted below it is mounted inside only.
  trap 'rm -rf --one-file-system "$work"' EXIT
  unshare --user --map-root-user --mount --propagation private -- "$0" inside "$work"
  exit
fi
work=$2

mkdir "$work/tmp" "$work/binfmt"
export TMPDIR=$work/tmp

register() { # ARCH
  local qemu=/usr/bin/qemu-$1-static machine
  case $1 in
    aarch64) machine='\xb7' ;;
    x86_64) machine='\x3e' ;;
    *) fail "what ELF files for $1 look like is not known here" ;;
  esac
  [ -x "$qemu" ] || fail "$qemu is missing: apt-get install qemu-user-static"
  mountpoint -q "$work/binfmt" || mount -t binfmt_misc binfmt_misc "$work/binfmt" \
    || fail "a user namespace has no binfmt_misc here: it takes Linux 6.7 or newer with CONFIG_BINFMT_MISC"
  # F: opened now, since the roots have none.
  printf '%s' ":qemu-$1:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00$machine\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:$qemu:F" \
    >"$work/binfmt/register"
}

# Makes a root with PROGRAM as /rk, and a program NAME that is /rk in there. The tests' files have the same paths in it.
enclose() { # NAME PROGRAM
  local root=$work/$1.root device
  mkdir -p "$root/proc" "$root/dev" "$root$TMPDIR"
  cp "$2" "$root/rk"
  mount --rbind /proc "$root/proc"
  mount --bind "$TMPDIR" "$root$TMPDIR"
  for device in null zero random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  printf '#!/bin/sh\nexec chroot %s /rk "$@"\n' "$root" >"$work/$1"
  chmod +x "$work/$1"
}

enclose controller "$rk"
export RK_TEST_PROGRAM=$work/controller
for program in dist/rk-*-linux-musl; do
  name=${program##*/}
  arch=${name%-linux-musl}
  arch=${arch##*-}
  [ "$arch" = "$here" ] || [ -e "$work/binfmt/qemu-$arch" ] || register "$arch"
  enclose "$name" "$program"
  echo "== $program"
  "$work/$name" version
  RK_TEST_AGENT=$work/$name cargo test --quiet --locked --all-features --test it -- smoke:: 2>&1 | tee "$work/said"
  grep -q '^test result: ok. [1-9]' "$work/said" || fail "no test ran: those of tests/it/smoke.rs are missing"
done
