package nodeapi

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/zstd"
)

// compressed compresses the JSON that next answers with gzip, where the request's
// Accept-Encoding allows that and next has not compressed it with zstd. Problems
// (application/problem+json) are never compressed.
func compressed(next http.Handler) http.Handler {
	wrap, err := gzhttp.NewWrapper(
		gzhttp.MinSize(0),
		gzhttp.ContentTypes([]string{"application/json"}),
		gzhttp.EnableZstd(false),
	)
	if err != nil {
		panic(err) // the options are constants
	}
	return wrap(next)
}

// acceptsZstd reports whether an Accept-Encoding header (RFC 9110, 12.5.3) allows zstd and does
// not prefer gzip.
func acceptsZstd(header string) bool {
	weights := map[string]float64{}
	for coding := range strings.SplitSeq(strings.ToLower(header), ",") {
		name, parameters, _ := strings.Cut(coding, ";")
		weight, has := strings.CutPrefix(strings.TrimSpace(parameters), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		if !has || err != nil {
			q = 1
		}
		weights[strings.TrimSpace(name)] = q
	}
	return weights["zstd"] > 0 && weights["zstd"] >= weights["gzip"]
}

// zstdWindow is the window of the default level, 8 MiB: in a document the UUID of a client
// repeats in every inbound, which can be megabytes later.
const zstdWindow = 8 << 20

// encoders keeps encoders for the next document: one has some 20 MB of tables.
var encoders = sync.Pool{New: func() any {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(zstdWindow))
	if err != nil {
		panic(err) // the options are constants
	}
	return encoder
}}

// pack compresses a document with zstd.
func pack(body []byte) []byte {
	encoder := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(encoder)
	return encoder.EncodeAll(body, nil)
}

// unpackTo undoes pack piece by piece, for a node that does not take zstd. It returns no error
// of writing, which means only that the node has disconnected.
func unpackTo(w io.Writer, packed []byte) error {
	decoder, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("unpack a document: %w", err)
	}
	defer decoder.Close()
	_, _ = decoder.WriteTo(w)
	return nil
}
