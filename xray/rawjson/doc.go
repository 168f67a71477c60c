// Package rawjson reads and writes JSON that nobody decodes into structs: Core's
// document carries Xray's own objects, and node-agent passes them on. The package
// splits an object into its members, writes an object in one canonical form, and
// reads the two ways in which Xray writes a list of texts.
//
// It imports no other package of this module.
package rawjson
