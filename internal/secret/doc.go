// Package secret has a type for what must not reach a log, an error or a status.
//
// A Text hides itself from package fmt, from log/slog and from encoders of JSON and of
// text. Code that needs the value calls Reveal, so that a search for Reveal finds every
// place where a secret leaves. A type that travels or is stored has a plain string for it,
// filled by Reveal: to encode a Text by mistake hides the secret instead of publishing it.
// Decoding needs no such care: JSON is decoded into a Text as into a string.
//
// Two gaps are left. Package fmt cannot call methods of unexported struct fields, so %+v of
// a struct prints a Text in an unexported field: a struct that may be printed has its Texts
// in exported fields. And encoding/json takes keys of kind string as they are: no map has a
// Text as its key.
package secret
