#!/usr/bin/env bash
# Images of the programs in dist/.
#   compose/images.sh local            this machine's, as remoting-kafka:local and remoting-kafka:local-agent
#   compose/images.sh index            both architectures, as an OCI layout in dist/images/rk (an agent's: BASE has to be there for both)
#   compose/images.sh push REGISTRY    that layout as REGISTRY/remoting-kafka:VERSION; needs skopeo
# BASE is what the agent's image is made on. Nothing is emulated and nothing fetched but BASE.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "compose/images.sh: $*" >&2; exit 1; }

dist=${DIST:-dist}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

machine() { case $1 in amd64) echo x86_64 ;; arm64) echo aarch64 ;; *) fail "no programs are made for $1" ;; esac; }

lay_out() { # ARCH…
  local arch file
  for arch in "$@"; do
    file=$dist/rk-$(machine "$arch")-linux-musl
    [ -e "$file" ] || fail "$file is missing: make static"
    mkdir -p "$context/$arch"
    install -m 755 "$file" "$context/$arch/rk"
  done
  mkdir -p "$context"/system/etc/ssl/certs
  install -m 644 "${CA_ROOTS:-/etc/ssl/certs/ca-certificates.crt}" "$context/system/etc/ssl/certs/ca-certificates.crt" \
    || fail "there are no CA roots: apt-get install ca-certificates, or name a PEM file with CA_ROOTS"
  echo 'rk:x:65532:65532:rk:/rk:/sbin/nologin' >"$context/system/etc/passwd"
  echo 'rk:x:65532:' >"$context/system/etc/group"
  # Volumes get the owner of the folder in the image where they are first seen.
  mkdir -p "$context"/owned/{rk,tmp,var/lib/rk}
  mkdir -p "$context"/owned/volumes/{authority,admin,broker-1,broker-2,broker-3,controller,agent-1,agent-2,join,ui}
  chmod 1777 "$context/owned/tmp"
  chmod 700 "$context"/owned/{rk,var/lib/rk} "$context"/owned/volumes/*
}

build() { # ARCH TARGET TAG
  # The classic builder where there is no BuildKit: both take this Dockerfile.
  local kit=1
  docker buildx version >/dev/null 2>&1 || kit=0
  DOCKER_BUILDKIT=$kit docker build --quiet --platform "linux/$1" --build-arg TARGETARCH="$1" --build-arg VERSION="$version" \
    ${BASE:+--build-arg BASE="$BASE"} --target "$2" --tag "$3" --file compose/Dockerfile "$context" >/dev/null
  echo "$3 (linux/$1)"
}

blob() { # FILE: puts it among the blobs, prints "digest":…,"size":…
  local sum
  sum=$(sha256sum "$1" | cut -d ' ' -f 1)
  cp "$1" "$layout/blobs/sha256/$sum"
  printf '"digest":"sha256:%s","size":%s' "$sum" "$(stat -c %s "$1")"
}

# What `docker save` writes is an image of Docker's; the parts are the same in an OCI layout, and the manifest is ours.
add_to_index() { # ARCH TAG
  local saved=$context/saved-$1 config layer layers=()
  mkdir -p "$saved"
  docker save "$2" | tar -x -C "$saved"
  config=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[0]["Config"])' "$saved/manifest.json")
  grep -q "\"architecture\":\"$1\"" "$saved/$config" || fail "the image $2 is not one for $1"
  for layer in $(python3 -c 'import json,sys; print(*json.load(open(sys.argv[1]))[0]["Layers"])' "$saved/manifest.json"); do
    gzip -n -9 <"$saved/$layer" >"$saved/layer.gz"
    layers+=("{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",$(blob "$saved/layer.gz")}")
  done
  local IFS=,
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[%s]}' \
    "$(blob "$saved/$config")" "${layers[*]}" >"$saved/ours.json"
  printf '{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,"platform":{"architecture":"%s","os":"linux"}}' \
    "$(blob "$saved/ours.json")" "$1"
}

index() { # TARGET NAME
  local arch entries=()
  layout=$dist/images/$2
  rm -rf "$layout"
  mkdir -p "$layout/blobs/sha256"
  for arch in amd64 arm64; do
    build "$arch" "$1" "remoting-kafka:$1-$arch"
    entries+=("$(add_to_index "$arch" "remoting-kafka:$1-$arch")")
  done
  local IFS=,
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' "${entries[*]}" >"$context/index.json"
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json",%s,"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}' \
    "$(blob "$context/index.json")" "$version" >"$layout/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
  echo "$layout: $(du -sh "$layout" | cut -f 1), amd64 and arm64"
}

case ${1:-} in
  local)
    arch=$(case $(uname -m) in x86_64) echo amd64 ;; aarch64) echo arm64 ;; *) uname -m ;; esac)
    lay_out "$arch"
    build "$arch" rk "${RK_IMAGE:-remoting-kafka:local}"
    build "$arch" agent "${RK_AGENT_IMAGE:-remoting-kafka:local-agent}"
    ;;
  index)
    lay_out amd64 arm64
    index rk rk
    if [ -n "${BASE:-}" ]; then index agent rk-agent; fi
    ;;
  push)
    [ -n "${2:-}" ] || fail "to which registry? make push REGISTRY=registry.example/team"
    command -v skopeo >/dev/null || fail "skopeo is missing: apt-get install skopeo"
    [ -e "$dist/images/rk/index.json" ] || fail "$dist/images/rk is missing: make images"
    for name in rk rk-agent; do
      [ -e "$dist/images/$name" ] || continue
      skopeo copy --all "oci:$dist/images/$name:$version" "docker://$2/${name/#rk/remoting-kafka}:$version"
    done
    ;;
  *) fail "local, index or push?" ;;
esac
