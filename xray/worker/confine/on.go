//go:build !unchecked

package confine

// enabled is false with the build tag unchecked, with which BenchmarkChecks measures what confinement,
// keepalive and the check of destinations cost. No program for use is built with it.
const enabled = true
