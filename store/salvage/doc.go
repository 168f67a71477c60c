// Package salvage reads a bbolt file that may be damaged, and returns what is left of it. It reads
// the file with ReadAt and checks every offset, so that no content of the file makes it panic, run
// for ever or touch memory behind the end of the file. bbolt itself maps the file and checks
// little: a damaged page ends the process.
//
// The format is that of bbolt version 2 (internal/common of go.etcd.io/bbolt). A file consists of
// pages of one size. A page that is too small for its content goes on in the pages after it, its
// overflow. Every page begins with a header of 16 bytes: its own number (uint64), its type
// (uint16), the number of its elements (uint16) and of its overflow pages (uint32), all in the
// byte order of the host.
//
//	meta      pages 0 and 1; the one with the greater transaction counts. It has the page of
//	          the root bucket and of the freelist, the number of pages, and a checksum
//	freelist  the numbers of the pages that no bucket uses, ascending
//	branch    keys, and the number of the page below each
//	leaf      keys and values. In the root bucket a value is a bucket: its root page (0 for a
//	          page that follows in the value itself) and its sequence
//
// Only the meta pages have checksums. Damage elsewhere is found by what pages say of each other:
// each page knows its number, the data of its elements follow each other without a gap, keys
// ascend over the whole bucket, and each page is reached once or is free. A flipped byte inside a
// key or value can't be found that way; the caller's values have checksums of their own.
//
// Free pages hold content of earlier transactions. That is never returned. So the leaf pages below
// a branch page that is damaged are only looked for where the freelist is good.
package salvage
