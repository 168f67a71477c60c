package importer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// readTables reads the tables of Marzban's database.
func (m *marzban) readTables(ctx context.Context, d *database) error {
	err := optional(d.each(ctx, "jwt", []string{"secret_key"}, nil, func(r *row) error {
		sum := sha256.Sum256([]byte(r.text("secret_key")))
		m.id = hex.EncodeToString(sum[:8]) // tells two panels apart, and says nothing of the secret
		return nil
	}))
	if err != nil {
		return err
	}
	if err := optional(d.each(ctx, "inbounds", []string{"tag"}, nil, func(r *row) error {
		m.tags = append(m.tags, r.text("tag"))
		return nil
	})); err != nil {
		return err
	}
	if err := m.readExcluded(ctx, d); err != nil {
		return err
	}
	resets, lastReset, err := readResets(ctx, d)
	if err != nil {
		return err
	}
	byID := map[int64]*person{}
	needed := []string{"id", "username", "status", "used_traffic", "data_limit", "expire"}
	others := []string{"created_at", "data_limit_reset_strategy", "note", "on_hold_timeout", "on_hold_expire_duration"}
	err = d.each(ctx, "users", needed, others, func(r *row) error {
		id := r.number64("id")
		u := marzbanUser{
			Username: word(r.text("username")), Status: word(r.text("status")), Used: flexible(r.count("used_traffic")), Limit: flexible(r.count("data_limit")),
			Expire: flexible(r.count("expire")), Strategy: word(r.text("data_limit_reset_strategy")), Note: word(r.text("note")),
			HoldDuration: flexible(r.count("on_hold_expire_duration")), HoldTimeout: word(r.text("on_hold_timeout")), createdAt: r.time("created_at"),
		}
		u.Lifetime = flexible(sum(int64(u.Used), resets[id]))
		if at, there := lastReset[id]; there {
			u.lastReset = &at
		}
		byID[id] = m.addUser(u)
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.readProxies(ctx, d, byID); err != nil {
		return err
	}
	if err := m.readHosts(ctx, d); err != nil {
		return err
	}
	return m.listOthers(ctx, d)
}

// sum is a + b, or the greatest number.
func sum(a, b int64) int64 {
	if a > 1<<62 || b > 1<<62 {
		return 1 << 62
	}
	return a + b
}

// readResets returns the bytes that were counted before the last resets, and when these were.
func readResets(ctx context.Context, d *database) (bytes map[int64]int64, last map[int64]time.Time, err error) {
	bytes, last = map[int64]int64{}, map[int64]time.Time{}
	return bytes, last, optional(d.each(ctx, "user_usage_logs", []string{"user_id", "used_traffic_at_reset"}, []string{"reset_at"}, func(r *row) error {
		id := r.number64("user_id")
		bytes[id] = sum(bytes[id], r.count("used_traffic_at_reset"))
		if at := r.time("reset_at"); at != nil && at.After(last[id]) {
			last[id] = *at
		}
		return nil
	}))
}

func (m *marzban) readExcluded(ctx context.Context, d *database) error {
	return optional(d.each(ctx, "exclude_inbounds_association", []string{"proxy_id", "inbound_tag"}, nil, func(r *row) error {
		id := r.number64("proxy_id")
		m.excluded[id] = append(m.excluded[id], r.text("inbound_tag"))
		return nil
	}))
}

// readProxies gives each user what it has of each protocol: on all inbounds of the protocol but
// those that are excluded.
func (m *marzban) readProxies(ctx context.Context, d *database, byID map[int64]*person) error {
	of := map[string][]string{} // tags by protocol
	for _, in := range m.inbounds {
		of[in.protocol] = append(of[in.protocol], in.tag)
	}
	unknown := 0
	err := d.each(ctx, "proxies", []string{"id", "user_id", "type", "settings"}, nil, func(r *row) error {
		user := byID[r.number64("user_id")]
		if user == nil {
			return nil // of a user who was removed
		}
		var settings struct{ ID, Flow, Password, Method word }
		if err := json.Unmarshal([]byte(r.text("settings")), &settings); err != nil {
			return fmt.Errorf("table proxies, row %d: read the settings: %w", r.number, err)
		}
		protocol := strings.ToLower(r.text("type"))
		if m.inbounds == nil { // which inbound has which protocol is in xray_config.json alone
			unknown++
		}
		for _, tag := range of[protocol] {
			if !slices.Contains(m.excluded[r.number64("id")], tag) {
				user.addProxy(tag, protocol, string(settings.ID), string(settings.Flow), string(settings.Password), string(settings.Method))
			}
		}
		return nil
	})
	if err == nil && unknown > 0 {
		err = fmt.Errorf("the inbounds of %d proxies are in the panel's xray_config.json: give it with --xray-config", unknown)
	}
	return err
}

func (m *marzban) readHosts(ctx context.Context, d *database) error {
	others := []string{"remark", "address", "port", "sni", "host", "security", "alpn", "fingerprint", "is_disabled", "path"}
	return optional(d.each(ctx, "hosts", []string{"inbound_tag"}, others, func(r *row) error {
		at := slices.IndexFunc(m.inbounds, func(in *inbound) bool { return in.tag == r.text("inbound_tag") })
		if at < 0 {
			return nil
		}
		in := m.inbounds[at]
		if len(in.hosts) == maxParts {
			return fmt.Errorf("inbound %s has more than %d hosts", in.tag, maxParts)
		}
		words := strings.NewReplacer("{SERVER_IP}", "", "{SERVER_IPV6}", "")
		for address := range strings.SplitSeq(words.Replace(r.text("address")), ",") {
			h := hostEdit(strings.TrimSpace(address), r.number64("port"), r.text("security"), "")
			h.Remark = new(cut(m.remark(in, r.text("remark")), 2*maxName))
			if r.text("fingerprint") != noFlow {
				setHostTexts(&h, "", "", "", r.text("fingerprint"))
			}
			for _, name := range []string{"sni", "host"} {
				if strings.ContainsAny(r.text(name), "*{") {
					m.leave("host", r.text("remark"), "its "+name+" "+printable(r.text(name), 40)+", of which the panel makes another one for each link")
					continue
				}
				one, _, _ := strings.Cut(r.text(name), ",")
				setHostTexts(&h, map[string]string{"sni": one}[name], map[string]string{"host": one}[name], "", "")
			}
			setHostTexts(&h, "", "", r.text("path"), "")
			if alpn := r.text("alpn"); alpn != noFlow && alpn != "" {
				h.ALPN = new(clean(alpn, maxName))
			}
			if r.flag("is_disabled", false) {
				h.Enabled = new(false)
			}
			in.hosts = append(in.hosts, h)
		}
		return nil
	}))
}

// remark is the panel's template of a link's name with Core's words; those that Core does not have
// are left out.
func (m *marzban) remark(in *inbound, template string) string {
	network := text(member(map[string]any{"s": in.config["streamSettings"]}, "s")["network"])
	if network == "" {
		network = "tcp"
	}
	known := strings.NewReplacer("{USERNAME}", "\x01user\x02", "{PROTOCOL}", strings.ToUpper(in.protocol), "{TRANSPORT}", network, "{SERVER_IP}", "\x01address\x02").Replace(template)
	var b strings.Builder
	depth := 0
	for _, r := range known {
		switch {
		case r == '{':
			depth++
		case r == '}':
			depth = max(0, depth-1)
		case depth == 0:
			b.WriteRune(r)
		}
	}
	return strings.NewReplacer("\x01", "{", "\x02", "}").Replace(strings.TrimSpace(b.String()))
}

// listOthers lists what is not carried over.
func (m *marzban) listOthers(ctx context.Context, d *database) error {
	for _, table := range []struct{ name, column, kind, reason string }{
		{"nodes", "name", "node", "another host of the panel: add it with 'node-core node add'"},
		{"user_templates", "name", "user template", "add a plan with 'node-core plan add'"},
		{"next_plans", "user_id", "next plan of the user with the id", "Core has no plan that follows by itself"},
	} {
		err := optional(d.each(ctx, table.name, []string{table.column}, nil, func(r *row) error {
			m.leave(table.kind, r.text(table.column), table.reason)
			return nil
		}))
		if err != nil {
			return err
		}
	}
	return nil
}
