// Package reads reads TCP sockets without a buffer while it waits for bytes. xray-core's reader holds at least 8 KiB for
// each direction of a connection, which is most of what an idle connection needs (common/buf/readv_reader.go:130).
package reads
