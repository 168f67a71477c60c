//go:build !unchecked

package life

// enabled is false with the build tag unchecked: see package confine.
const enabled = true
