//go:build nocount

package traffic

const counting = false
