package nodeconfig

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
)

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// userPlaceholder stands for the name of the user in a remark.
const userPlaceholder = "{user}"

// placeholders are what a remark can name.
var placeholders = []string{"{node}", "{tag}", "{region}", userPlaceholder, "{address}"}

// CheckRemark refuses a remark that names what there is not.
func CheckRemark(remark string) error {
	for _, found := range placeholder.FindAllString(remark, -1) {
		if !strings.Contains(strings.Join(placeholders, " "), found) {
			return fmt.Errorf("remark %q has %s; it can have %s", remark, found, strings.Join(placeholders, ", "))
		}
	}
	return nil
}

// withHost returns a route with what a host says in the place of the inbound's own. The name keeps
// the placeholder of the user.
func (r route) withHost(h corestore.Host) route {
	r.host = &h
	if r.endpoint == nil {
		return r
	}
	e := *r.endpoint
	e.Host, e.Port = cmp.Or(h.Address, e.Host), cmp.Or(int(h.Port), e.Port)
	e.Stream.ServerName, e.Stream.Fingerprint = cmp.Or(h.SNI, e.Stream.ServerName), cmp.Or(h.Fingerprint, e.Stream.Fingerprint)
	e.Stream.Host, e.Stream.Path = cmp.Or(h.HTTPHost, e.Stream.Host), cmp.Or(h.Path, e.Stream.Path)
	if h.ALPN != "" {
		e.Stream.ALPN = strings.Split(h.ALPN, ",")
	}
	if h.Security != "" {
		e.Stream.Security = h.Security
	}
	if h.Remark != "" {
		e.Name = strings.NewReplacer("{node}", r.node.Name, "{tag}", r.protocol.Tag, "{region}", r.node.Region, "{address}", e.Host).Replace(h.Remark)
	}
	r.endpoint = &e
	return r
}

// telegramLink returns a link of MTProto, tg:// or https://t.me, with another server.
func telegramLink(link string, h corestore.Host) string {
	u, err := url.Parse(link)
	if err != nil {
		return link // Core made it
	}
	query := u.Query()
	query.Set("server", cmp.Or(h.Address, query.Get("server")))
	if h.Port != 0 {
		query.Set("port", strconv.FormatInt(h.Port, 10))
	}
	u.RawQuery = query.Encode()
	return u.String()
}
