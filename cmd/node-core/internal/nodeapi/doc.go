// Package nodeapi answers the node routes of the contract.
package nodeapi
