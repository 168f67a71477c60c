// Package raw is the listener of RAW with REALITY. xray-core's own one bounds no stranger's visit to
// the borrowed site, and does not tell of connections that it refuses.
package raw
