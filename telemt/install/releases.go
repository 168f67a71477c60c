package install

import "golang.org/x/mod/semver"

// badReleases are releases that harm clients, with what is wrong with them.
var badReleases = map[string]string{
	"v3.4.24": stalls,
	"v3.4.25": stalls,
}

const stalls = "it stalls on large transfers: a download stops where a socket was full, until the other side sends something"

// Bad says what is wrong with a release, as in "v3.4.25"; it is empty where nothing is known.
func Bad(version string) string { return badReleases[semver.Canonical(version)] }
