package process

import "strings"

// Recommended is the release of telemt that operators are told to install: the newest one with
// which the tests that move megabytes in lockstep over a slow reader pass.
const Recommended = "3.4.23"

// holdsBack is what releases do whose adaptive_copy.rs copies over a writer that buffers, and
// never flushes it.
const holdsBack = "holds back the end of transfers of 512 KiB and more until more bytes come, so that large uploads and downloads stall"

// badReleases are releases that serve and should not be used, by version, with the reason. The
// reason follows "telemt 3.4.25" in a sentence.
var badReleases = map[string]string{
	"v3.4.24": holdsBack,
	"v3.4.25": holdsBack,
}

// ReleaseWarning returns what is wrong with a release, and what to do; empty where nothing is
// known. version is as in 3.4.25.
func ReleaseWarning(version string) string {
	reason, bad := badReleases["v"+strings.TrimPrefix(version, "v")]
	if !bad {
		return ""
	}
	return "telemt " + version + " " + reason + ": install telemt " + Recommended
}
