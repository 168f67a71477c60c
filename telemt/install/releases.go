package install

import "nodeagent/telemt/process"

// Bad says what is wrong with a release, as in "v3.4.25"; it is empty where nothing is known.
func Bad(version string) string { return process.BadRelease(version) }
