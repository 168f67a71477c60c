package process

import (
	"strings"

	"golang.org/x/mod/semver"
)

// Recommended is the release of telemt that operators are told to install: the newest one with
// which the tests that move megabytes in lockstep over a slow reader pass.
const Recommended = "3.4.23"

// holdsBack is what releases do whose adaptive_copy.rs copies over a writer that buffers, and
// never flushes it.
const holdsBack = "it stalls on large transfers: it holds back the end of 512 KiB and more until more bytes come"

// badReleases are releases that serve and should not be used, by version, with the reason, which
// follows "telemt 3.4.25 is known to be bad:".
var badReleases = map[string]string{
	"v3.4.24": holdsBack,
	"v3.4.25": holdsBack,
}

// BadRelease returns what is wrong with a release, as the rest of a sentence that names it; empty
// where nothing is known. version is as in v3.4.25 or 3.4.25.
func BadRelease(version string) string {
	return badReleases[semver.Canonical("v"+strings.TrimPrefix(version, "v"))]
}

// ReleaseWarning returns a sentence that says what is wrong with a release, and what to do; empty
// where nothing is known.
func ReleaseWarning(version string) string {
	reason := BadRelease(version)
	if reason == "" {
		return ""
	}
	return "telemt " + version + " is known to be bad: " + reason + ": install telemt " + Recommended
}
