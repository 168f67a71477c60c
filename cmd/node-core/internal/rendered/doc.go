// Package rendered has the configurations of nodes as they are sent: documents, and the differences
// between them. What nodes share is rendered once for all of them.
//
// The clients of a group stand in chunks of some hundred (roster). A chunk is rendered once for each
// form that clients have in lists, and once for clientMap: a piece, compressed by itself. Frames of
// zstd can stand one behind the other (RFC 8878, section 3), so that a document is put together from
// pieces and from the few bytes that are a node's own (layout), and is not compressed again. One
// change of a client renders one chunk.
//
// The roster is read once, and then kept up by what the database says has changed. It keeps the
// changes, out of which deltas are made: what they cost follows the change and not the document.
//
// A document is the same bytes, and has the same ETag, for the same rows, whichever instance of Core
// makes it: where chunks begin depends on the ids in them alone. nodeconfig.Build makes the same
// configuration of the same rows.
package rendered
