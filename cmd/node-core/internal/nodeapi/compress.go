package nodeapi

import (
	"io"
	"net/http"

	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzhttp/writer"
	"github.com/klauspost/compress/zstd"
)

// compressed compresses the JSON that next answers with zstd or gzip, as the request's
// Accept-Encoding allows. Problems (application/problem+json) are never compressed.
func compressed(next http.Handler) http.Handler {
	wrap, err := gzhttp.NewWrapper(
		gzhttp.MinSize(0),
		gzhttp.ContentTypes([]string{"application/json"}),
		gzhttp.ZstdCompressionLevel(int(zstd.SpeedDefault)),
		gzhttp.ZstdImplementation(writer.ZstdWriterFactory{
			Levels: func() (least, most int) { return int(zstd.SpeedFastest), int(zstd.SpeedBestCompression) },
			New:    newZstd,
		}),
	)
	if err != nil {
		panic(err) // the options are constants
	}
	return wrap(next)
}

// newZstd makes an encoder with the window that belongs to the level: 8 MiB at the default
// level. gzhttp's own encoder has a window of 128 KiB. In a configuration the UUID of a client
// repeats in every inbound, which can be megabytes later.
func newZstd(w io.Writer, level int) writer.ZstdWriter {
	encoder, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.EncoderLevel(level)))
	if err != nil {
		panic(err) // the options are constants, but for the level, which Levels bounds
	}
	return encoder
}
