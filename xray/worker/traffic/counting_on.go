//go:build !nocount

package traffic

// counting is compiled out with the build tag nocount, to measure what it costs.
const counting = true
