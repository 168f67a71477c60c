// Package versions knows which parts of an inbound or outbound need which version of Xray, so
// that Core can say what a node of another version makes of them. It is pure.
//
// The versions are those of Xray's releases. docs/upgrading.md says how the table is kept.
package versions
