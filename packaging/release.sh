#!/usr/bin/env bash
# packaging/release.sh VERSION: makes a release of what is on main, up to what others can see: version, changelog, programs in dist/,
# a try at publishing, a commit and a tag. Pushing, publishing and images for a registry are left to a person, and told at the end.
# Nothing is changed if one of its steps fails. `make release VERSION=1.2.3` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "packaging/release.sh: $*" >&2; exit 1; }

version=${1:-}
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail "which version? make release VERSION=1.2.3"
tag=v$version
[ "$(git branch --show-current)" = main ] || fail "releases are made on main: git switch main"
[ -z "$(git status --porcelain)" ] || fail "there are changes that are not committed: git status"
git rev-parse -q --verify "refs/tags/$tag" >/dev/null && fail "there is a tag $tag: releases are not made twice"
present=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# The first release has the version that was there all the time.
[ -z "$(git tag --list 'v*')" ] || [ "$present" != "$version" ] || fail "Cargo.toml has version $version already"
newest=$(printf '%s\n' "$present" "$version" | sort -V | tail -1)
[ "$newest" = "$version" ] || fail "$version is older than $present, which Cargo.toml has"
changes=$(sed -n '/^## \[Unreleased\]/,/^## \[[0-9]/p' CHANGELOG.md | sed '/^## /d')
grep -q '^- ' <<<"$changes" || fail "CHANGELOG.md has nothing under [Unreleased]"

files=(Cargo.toml Cargo.lock CHANGELOG.md)
undo() { git checkout -q -- "${files[@]}"; }
trap undo EXIT
sed -i "0,/^version = \".*\"/s//version = \"$version\"/" Cargo.toml
cargo metadata --format-version 1 >/dev/null   # writes the version into Cargo.lock
sed -i "s/^## \[Unreleased\]$/## [Unreleased]\n\n## [$version] - $(date -u +%F)/" CHANGELOG.md

make static static-agent
cargo publish --dry-run --locked --allow-dirty

trap - EXIT
git commit -q -m "Release $version" -- "${files[@]}"
git tag -a "$tag" --cleanup=verbatim -m "remoting-kafka $version" -m "$changes"
cat <<END
$tag is made, here alone. To let others have it:
  git push --follow-tags
  cargo publish --locked
  make images push REGISTRY=…
and attach the files of dist/ to the release of $tag.
END
