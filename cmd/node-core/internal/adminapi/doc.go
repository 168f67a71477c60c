// Package adminapi connects the commands of node-core with the running Core. A command sends
// one call (Do), which the Core answers (Server): JSON over HTTP over a unix socket in the data
// folder. Only the owner of the folder can open the socket, and that is all the protection
// that the calls have.
package adminapi
