package nodeconfig

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/share"
)

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// placeholders are what a remark can name.
var placeholders = []string{"{node}", "{tag}", "{region}", "{user}", "{address}"}

// CheckRemark refuses a remark that names what there is not.
func CheckRemark(remark string) error {
	for _, found := range placeholder.FindAllString(remark, -1) {
		if !strings.Contains(strings.Join(placeholders, " "), found) {
			return fmt.Errorf("remark %q has %s; it can have %s", remark, found, strings.Join(placeholders, ", "))
		}
	}
	return nil
}

// WithHosts returns the ways with a way for each host of an inbound that is enabled, in the place of
// the inbound's own. user is the name of the subscription's user.
func WithHosts(ways []Way, hosts []corestore.Host, user string) []Way {
	of := map[int64][]corestore.Host{}
	for _, h := range hosts {
		of[h.ProtocolID] = append(of[h.ProtocolID], h)
	}
	all := []Way{}
	for _, w := range ways {
		if len(of[w.Protocol.ID]) == 0 || len(w.Links) == 0 && w.Endpoint == nil {
			all = append(all, w)
			continue
		}
		for _, h := range of[w.Protocol.ID] {
			if h.Enabled {
				all = append(all, withHost(w, h, user))
			}
		}
	}
	return all
}

// withHost returns a way with what a host says in the place of the inbound's own.
func withHost(w Way, h corestore.Host, user string) Way {
	if w.Protocol.Protocol == mtproto {
		links := make([]string, len(w.Links))
		for i, link := range w.Links {
			links[i] = telegramLink(link, h)
		}
		w.Links = links
		return w
	}
	if w.Endpoint == nil {
		return w
	}
	e := *w.Endpoint
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
		e.Name = strings.NewReplacer("{node}", w.Node.Name, "{tag}", w.Protocol.Tag, "{region}", w.Node.Region, "{user}", user, "{address}", e.Host).Replace(h.Remark)
	}
	w.Endpoint = &e
	if len(w.Links) > 0 {
		w.Links = nil
		if link, err := share.Link(e); err != nil {
			w.Reason = err.Error()
		} else {
			w.Links = []string{link}
		}
	}
	return w
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
