// Package nodecheck checks a node's configuration in Core, with the node's own rules: what the
// node would refuse in the text, and what it would warn of.
//
// It opens no file and no port: what depends on the node's host (certificates in files, ports
// that other processes hold, geo files) only the node can tell. What xray-core itself refuses
// when it builds a part (a REALITY key that is none, for example) is not known here either.
package nodecheck
