//go:build !nocount

package worker

// counting is compiled out with the build tag nocount, to measure what it costs.
const counting = true
