// Package nodeconfig makes what a node runs from Core's rows: the NodeConfig of
// the contract, the inbounds that flags describe, and the links with which
// clients reach them.
package nodeconfig
