package importer

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"nodeagent/coreapi"
)

// setTerms sets what a client may: limits, end, period, contact.
func (x *threeXUI) setTerms(of *person, c xuiClient, inboundPeriod string) {
	more := x.clients[of.name]
	of.uuids = append(of.uuids, string(more.ID))
	of.note = cmp.Or(string(c.Comment), string(more.Comment))
	if more.group != "" {
		of.note = strings.TrimSpace(of.note + " [" + more.group + "]")
	}
	if telegram := cmp.Or(string(c.Telegram), string(more.Telegram)); telegram != "" && telegram != "0" {
		of.contact = map[string]string{"telegram": telegram}
	}
	of.sub.LimitBytes, of.sub.LimitIPs = max(0, int64(c.Total)), max(0, int64(c.LimitIP))
	switch ms := int64(c.ExpiryTime); {
	case ms < 0: // so long from the first use
		of.sub.ExpiresAfterSeconds = min(-(ms / 1000), maxLife)
	case ms > 0:
		of.sub.ExpiresAt = sensible(time.UnixMilli(ms))
	}
	if c.CreatedAt > 0 {
		of.sub.CreatedAt = sensible(time.UnixMilli(int64(c.CreatedAt)))
	}
	period := cmp.Or(strings.TrimPrefix(more.period, "never"), strings.TrimPrefix(inboundPeriod, "never"))
	switch period {
	case "":
	case "daily", "weekly", "monthly":
		of.sub.Period = map[string]string{"daily": "day", "weekly": "week", "monthly": "month"}[period]
	default:
		x.leave("period", of.name, "its bytes were counted anew "+printable(period, 20)+", which Core does not do")
	}
	if c.Reset > 0 {
		x.leave("renewal", of.name, fmt.Sprintf("the panel renewed it every %d days by itself; with Core it ends", int64(c.Reset)))
	}
	if more.devices > 0 {
		x.leave("device limit", of.name, fmt.Sprintf("a limit of %d devices", more.devices))
	}
}

// maxLife bounds how long a subscription may live, in seconds: a thousand years.
const maxLife = 1000 * 365 * 24 * 3600

// publicOf returns the public key of a private one of WireGuard; "" for what is none.
func publicOf(private string) string {
	raw, err := base64.StdEncoding.DecodeString(private)
	if err != nil {
		return ""
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
}

// readTraffic sets the counters. A client whom the panel has cut off for its limit or end stays
// enabled: Core sees the same, and lets the client in again when the limit is raised.
func (x *threeXUI) readTraffic(ctx context.Context) error {
	cut := map[string]bool{}
	err := x.d.each(ctx, "client_traffics", []string{"email", "up", "down"}, []string{"enable", "total", "expiry_time"}, func(r *row) error {
		of := x.byEmail[r.text("email")]
		if of == nil {
			return nil // of a client who was removed
		}
		of.sub.BytesUp, of.sub.BytesDown = r.count("up"), r.count("down")
		of.sub.UsedUp, of.sub.UsedDown = of.sub.BytesUp, of.sub.BytesDown
		if expiry := r.number64("expiry_time"); expiry > 0 && of.sub.ExpiresAfterSeconds > 0 { // its first use has begun its time
			of.sub.ExpiresAt, of.sub.ExpiresAfterSeconds = sensible(time.UnixMilli(expiry)), 0
		}
		cut[of.name] = !r.flag("enable", true)
		return nil
	})
	if err != nil {
		return err
	}
	for _, of := range x.people {
		used := of.sub.UsedUp + of.sub.UsedDown
		spent := of.sub.LimitBytes > 0 && used >= of.sub.LimitBytes || of.sub.ExpiresAt != nil && !of.sub.ExpiresAt.After(x.now)
		of.sub.Disabled = (cut[of.name] || x.off[of.name]) && !spent
	}
	return nil
}

// hostsOfProxies reads what version 2 has of proxies before an inbound.
func hostsOfProxies(list any) (hosts []coreapi.HostEdit) {
	entries, _ := list.([]any)
	for _, entry := range entries {
		proxy, is := entry.(map[string]any)
		if !is {
			continue
		}
		var port flexible
		_ = port.UnmarshalJSON([]byte(text(proxy["port"]))) // none is the inbound's own
		hosts = append(hosts, hostEdit(text(proxy["dest"]), int64(port), text(proxy["forceTls"]), text(proxy["remark"])))
	}
	return hosts
}

// hostEdit makes a host; security is none, tls, or another word for the inbound's own.
func hostEdit(address string, port int64, security, remark string) coreapi.HostEdit {
	h := coreapi.HostEdit{Address: new(clean(address, 2*maxName)), Remark: new(withoutBraces(clean(remark, 2*maxName)))}
	if port > 0 && port < 65536 {
		h.Port = &port
	}
	if security == "none" || security == "tls" {
		h.Security = &security
	}
	return h
}

func withoutBraces(text string) string { return strings.NewReplacer("{", "", "}", "").Replace(text) }

// readHosts reads the hosts of version 3, which has there what version 2 has in inbounds.
func (x *threeXUI) readHosts(ctx context.Context) error {
	seen := map[*inbound]bool{}
	others := []string{"remark", "is_disabled", "is_hidden", "address", "port", "security", "sni", "host_header", "path", "fingerprint"}
	return optional(x.d.each(ctx, "hosts", []string{"inbound_id"}, others, func(r *row) error {
		in := x.byID[r.number64("inbound_id")]
		if in == nil {
			return nil
		}
		if !seen[in] {
			in.hosts, seen[in] = nil, true
		}
		if len(in.hosts) == maxParts {
			return fmt.Errorf("inbound %s has more than %d hosts", in.tag, maxParts)
		}
		h := hostEdit(r.text("address"), r.number64("port"), r.text("security"), r.text("remark"))
		setHostTexts(&h, r.text("sni"), r.text("host_header"), r.text("path"), r.text("fingerprint"))
		if r.flag("is_disabled", false) || r.flag("is_hidden", false) {
			h.Enabled = new(false)
		}
		if r.text("security") == "reality" {
			x.leave("host", r.text("remark"), "a host with REALITY that the inbound "+in.tag+" has not")
			return nil
		}
		in.hosts = append(in.hosts, h)
		return nil
	}))
}

// setHostTexts sets the members that are not empty.
func setHostTexts(h *coreapi.HostEdit, sni, header, path, fingerprint string) {
	for _, m := range []struct {
		to   **string
		text string
	}{{&h.SNI, sni}, {&h.HTTPHost, header}, {&h.Path, path}, {&h.Fingerprint, fingerprint}} {
		if value := clean(m.text, 2*maxName); value != "" {
			*m.to = &value
		}
	}
}

// readOthers lists what is not carried over.
func (x *threeXUI) readOthers(ctx context.Context) error {
	for _, table := range []struct{ name, column, kind, reason string }{
		{"nodes", "name", "node", "another host of the panel: add it with 'node-core node add'"},
		{"outbound_subscriptions", "remark", "outbounds", "outbounds that the panel fetches"},
		{"inbound_fallbacks", "name", "fallback", "add it to the inbound's object with 'node-core protocol edit --inbound'"},
	} {
		err := x.d.each(ctx, table.name, []string{table.column}, nil, func(r *row) error {
			x.leave(table.kind, r.text(table.column), table.reason)
			return nil
		})
		if err := optional(err); err != nil {
			return err
		}
	}
	if len(x.people) > 0 {
		x.notes = append(x.notes, "the panel's own subscription links end with it; 'node-core subscription show' has the new one of each user")
	}
	return nil
}
