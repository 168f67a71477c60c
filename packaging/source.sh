#!/bin/sh
# Writes the source archive of the last commit, with the modules in vendor/, for packagers who build
# without a network: source.sh FOLDER VERSION EPOCH. The same commit gives the same bytes.
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
version=$2 epoch=$3
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
name=node-agent-$version
git archive --format=tar --prefix="$name/" HEAD | tar -x -C "$work"
(
	cd "$work/$name"
	echo "$version" >VERSION
	echo "$epoch" >EPOCH
	GOFLAGS=-mod=mod GOWORK=off go mod vendor
)
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --mode=u=rwX,go=rX -c "$name" |
	gzip -n -9 >"$out/$name-source.tar.gz"
echo "$out/$name-source.tar.gz"
if [ -f "$out/SHA256SUMS" ]; then
	(cd "$out" && grep -v "  $name-source.tar.gz\$" SHA256SUMS >sums && sha256sum "$name-source.tar.gz" >>sums && mv sums SHA256SUMS)
fi
