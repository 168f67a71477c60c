//go:build nocount

package worker

const counting = false
