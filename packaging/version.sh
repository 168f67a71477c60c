#!/bin/sh
# Prints the version of this checkout for packages: that of the newest tag vX.Y.Z, with the commits
# since as X.Y.Z+N.gHASH; 0.0.0+N.gHASH without a tag; what the file VERSION says in a source
# archive. It is greater for a later commit (deb-version(7)).
set -eu
cd "$(dirname "$0")/.."
if [ -f VERSION ]; then
	cat VERSION
	exit
fi
hash=$(git rev-parse --short=10 HEAD)
if tag=$(git describe --tags --match 'v[0-9]*' --abbrev=0 2>/dev/null); then
	since=$(git rev-list --count "$tag..HEAD")
	version=${tag#v}
else
	since=$(git rev-list --count HEAD)
	version=0.0.0
fi
if [ "$since" != 0 ]; then
	version=$version+$since.g$hash
fi
# Files that git does not have go into no package.
if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
	version=$version.dirty
fi
echo "$version" | tr - '~'
