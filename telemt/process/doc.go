// Package process runs telemt. It knows the program, the folder and the process of one
// inbound, but not when to start or stop it: that is for the engine in package telemt.
//
//   - Binary finds the program and its version. All inbounds share one Binary.
//   - Folder is the inbound's folder: telemt's configuration, and telemt's own files.
//   - Start starts telemt in a Folder and waits until it serves. The Process that it
//     returns has telemt's API, its output, and the addresses that were chosen for it.
//   - Output keeps the last lines that telemt has printed, with the secrets replaced. It
//     explains why telemt ended or rejected a file.
package process
