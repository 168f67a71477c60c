// Package rawjson reads and writes JSON without structs. Core's document carries objects in
// Xray's own format, and node-agent passes them on without knowing all of their members.
// The package splits an object into its members, writes an object in one canonical form,
// and reads the two ways in which Xray writes a list of texts.
//
// It imports no other package of this module.
package rawjson
