package nodeapi

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzhttp"
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
