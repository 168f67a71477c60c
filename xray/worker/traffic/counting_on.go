//go:build !nocount

package traffic

// counting is false with the build tag nocount, which benchmarks use to measure the cost of
// counting.
const counting = true
