package nodeconfig

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
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

// LinksWithHosts returns the links to an inbound: one for each of its hosts that is enabled, and the
// inbound's own ones where it has no host. user is the name of the subscription's user.
func LinksWithHosts(node corestore.Node, p corestore.Protocol, sub corestore.Subscription, hosts []corestore.Host, user string) ([]string, error) {
	own, err := Links(node, p, sub)
	if err != nil || len(own) == 0 || len(hosts) == 0 {
		return own, err
	}
	all := []string{}
	for _, h := range hosts {
		if !h.Enabled {
			continue
		}
		for _, link := range own {
			said, err := withHost(link, node, p, h, user)
			if err != nil {
				return nil, err
			}
			all = append(all, said)
		}
	}
	return all, nil
}

// withHost returns a link with what a host says in the place of the inbound's own.
func withHost(link string, node corestore.Node, p corestore.Protocol, h corestore.Host, user string) (string, error) {
	u, err := url.Parse(link)
	if err != nil {
		return "", fmt.Errorf("read a link of inbound %s: %w", p.Tag, err)
	}
	query := u.Query()
	address := cmp.Or(h.Address, u.Hostname())
	if p.Protocol == mtproto { // tg://proxy?server=…&port=… and the same of https://t.me
		address = cmp.Or(h.Address, query.Get("server"))
		query.Set("server", address)
		if h.Port != 0 {
			query.Set("port", strconv.FormatInt(h.Port, 10))
		}
		u.RawQuery = query.Encode()
		return u.String(), nil
	}
	port := u.Port()
	if h.Port != 0 {
		port = strconv.FormatInt(h.Port, 10)
	}
	u.Host = net.JoinHostPort(address, port)
	for name, value := range map[string]string{"sni": h.SNI, "fp": h.Fingerprint, "host": h.HTTPHost, "path": h.Path, "alpn": h.ALPN} {
		add(query, name, value)
	}
	u.RawQuery = query.Encode()
	if h.Remark != "" {
		u.Fragment = strings.NewReplacer("{node}", node.Name, "{tag}", p.Tag, "{region}", node.Region, "{user}", user, "{address}", address).Replace(h.Remark)
	}
	return u.String(), nil
}
