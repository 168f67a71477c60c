//go:build unchecked

package life

const enabled = false
