// Package ipc is the conversation between the daemon and a worker: length-prefixed JSON
// frames over a unix socket pair, and the messages in them.
package ipc
