// Package service is what Core wants of the MTProto inbounds: it reads Core's
// configuration, tells what differs between two, and writes the file that a telemt
// reads.
package service
