// Package adminapi is how an operator's commands reach the running Core: calls
// in JSON over a unix socket in the data folder, which its owner alone can
// open.
package adminapi
