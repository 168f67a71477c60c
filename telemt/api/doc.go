// Package api asks a running telemt over its control API and reads its metrics.
package api
