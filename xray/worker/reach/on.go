//go:build !unchecked

package reach

// enabled is false with the build tag unchecked: see package confine.
const enabled = true
