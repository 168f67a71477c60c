package grpc

import (
	"net/url"
	"strings"
)

// names reads a gRPC transport's serviceName. "name" has the streams Tun and
// TunMulti; "/service/with/slashes/tun|multi" names them, and one name stands for both.
func names(setting string) (service, tun, multi string) {
	path, custom := strings.CutPrefix(setting, "/")
	if !custom {
		return url.PathEscape(setting), "Tun", "TunMulti"
	}
	streams := path
	if i := strings.LastIndex(path, "/"); i >= 0 {
		service, streams = path[:i], path[i+1:]
	}
	parts := strings.Split(service, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	names := strings.Split(streams, "|")
	tun, multi = names[0], names[0]
	if len(names) > 1 {
		multi = names[1]
	}
	return strings.Join(parts, "/"), url.PathEscape(tun), url.PathEscape(multi)
}
