// Package grant is the member "grant" of a client in Core's document: how many bytes one person
// may still move on this node, over all of the person's inbounds, and until when.
//
// A grant is counted by a slot of the counters file, which the daemon assigns to the person and
// the id of the grant. The Xray workers add to the slot before they pass bytes on, and the daemon
// adds what telemt counted, so that all of them see one sum. The slot's Up has the bytes of both
// directions; its Down is not used.
package grant
