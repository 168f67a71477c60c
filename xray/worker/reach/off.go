//go:build unchecked

package reach

const enabled = false
