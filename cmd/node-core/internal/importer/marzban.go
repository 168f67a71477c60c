package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"nodeagent/coreapi"
)

// Marzban reads the SQLite file of Marzban, db.sqlite3, or the answer of its GET /api/users. The
// inbounds are in xrayConfig, the panel's xray_config.json; without it, the node has to have
// inbounds of the same tags already.
func Marzban(ctx context.Context, path, xrayConfig string, o Options) (r Read, err error) {
	m := marzban{panel: panel{kind: "marzban"}, excluded: map[int64][]string{}}
	if xrayConfig != "" {
		if err := m.readXray(xrayConfig); err != nil {
			return r, fmt.Errorf("read Marzban's Xray configuration: %w", err)
		}
	}
	if isJSON(path) {
		err = m.readAnswer(path)
	} else {
		err = m.readDatabase(ctx, path)
	}
	if err != nil {
		return r, fmt.Errorf("read Marzban's users: %w", err)
	}
	if len(m.people) > 0 {
		m.notes = append(m.notes, "the panel's own subscription links end with it; 'node-core subscription show' has the new one of each user")
	}
	return m.finish(o)
}

type marzban struct {
	panel
	tags     []string           // of the inbounds that the database has
	excluded map[int64][]string // tags by the id of a proxy
}

// isJSON reports whether a file begins as a JSON object or list does.
func isJSON(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, 64)
	n, _ := file.Read(head)
	head = bytes.TrimSpace(bytes.TrimPrefix(head[:n], []byte("\xef\xbb\xbf")))
	return len(head) > 0 && (head[0] == '{' || head[0] == '[')
}

// maxJSON is how many bytes of a file of JSON are read.
const maxJSON = 1 << 30

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxJSON {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", path, int64(maxJSON))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxJSON))
}

// readXray reads the inbounds of a configuration of Xray.
func (p *panel) readXray(path string) error {
	raw, err := readFile(path)
	if err != nil {
		return err
	}
	if err := p.readXrayConfig(withoutComments(raw)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (p *panel) readXrayConfig(raw []byte) error {
	var config struct {
		Inbounds  []map[string]any
		Outbounds []struct{ Tag, Protocol string }
		Routing   struct{ Rules []any }
	}
	if err := decode(raw, &config); err != nil {
		return err
	}
	for i, object := range config.Inbounds {
		name := text(object["tag"])
		if name == "" {
			name = fmt.Sprintf("inbounds[%d]", i)
		}
		if settings := member(object, "settings"); text(object["protocol"]) == "dokodemo-door" && strings.EqualFold(name, "API_INBOUND") && settings != nil {
			continue // the panel's own way to Xray
		}
		in, err := p.newInbound(object)
		if err != nil {
			p.leave("inbound", name, err.Error())
			continue
		}
		p.inbounds = append(p.inbounds, in)
	}
	for _, o := range config.Outbounds {
		if o.Protocol != "freedom" && o.Protocol != "blackhole" {
			p.leave("outbound", o.Tag, "add it with 'node-core outbound add'")
		}
	}
	if n := len(config.Routing.Rules); n > 0 {
		p.leave("routing", "rules", fmt.Sprintf("%d rules of the panel: a node has a routing profile, which 'node-core routing' edits", n))
	}
	return nil
}

// withoutComments replaces the comments that Xray and the panels allow in JSON (//, # and /* */) by
// spaces.
func withoutComments(raw []byte) []byte {
	out := slices.Clone(raw)
	for i := 0; i < len(out); i++ {
		switch {
		case out[i] == '"':
			for i++; i < len(out) && out[i] != '"'; i++ {
				if out[i] == '\\' {
					i++
				}
			}
		case out[i] == '#' || bytes.HasPrefix(out[i:], []byte("//")):
			for ; i < len(out) && out[i] != '\n'; i++ {
				out[i] = ' '
			}
		case bytes.HasPrefix(out[i:], []byte("/*")):
			end := bytes.Index(out[i+2:], []byte("*/"))
			if end < 0 {
				return out
			}
			for last := i + end + 4; i < last; i++ {
				out[i] = ' '
			}
			i--
		}
	}
	return out
}

// marzbanUser is a user as the answer of GET /api/users has it.
type marzbanUser struct {
	Username     word                                                 `json:"username"`
	Status       word                                                 `json:"status"`
	Used         flexible                                             `json:"used_traffic"`
	Lifetime     flexible                                             `json:"lifetime_used_traffic"`
	Limit        flexible                                             `json:"data_limit"`
	Expire       flexible                                             `json:"expire"`
	Strategy     word                                                 `json:"data_limit_reset_strategy"`
	Note         word                                                 `json:"note"`
	HoldDuration flexible                                             `json:"on_hold_expire_duration"`
	HoldTimeout  word                                                 `json:"on_hold_timeout"`
	CreatedAt    word                                                 `json:"created_at"`
	Proxies      map[string]struct{ ID, Flow, Password, Method word } `json:"proxies"`
	Inbounds     map[string][]string                                  `json:"inbounds"`
	createdAt    *time.Time
	lastReset    *time.Time
}

func (m *marzban) readAnswer(path string) error {
	raw, err := readFile(path)
	if err != nil {
		return err
	}
	var answer struct{ Users []marzbanUser }
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("[")) {
		err = json.Unmarshal(raw, &answer.Users)
	} else {
		err = json.Unmarshal(raw, &answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; want the answer of GET /api/users", path, err)
	}
	if len(answer.Users) == 0 {
		return fmt.Errorf("%s has no users; want the answer of GET /api/users", path)
	}
	if len(answer.Users) > maxRows {
		return fmt.Errorf("%s has more than %d users", path, maxRows)
	}
	for _, u := range answer.Users {
		for _, form := range timeForms {
			if t, err := time.Parse(form, string(u.CreatedAt)); err == nil {
				u.createdAt = sensible(t)
				break
			}
		}
		of := m.addUser(u)
		of.origin = string(u.Username) + " " + string(u.CreatedAt)
		for protocol, settings := range u.Proxies {
			for _, tag := range u.Inbounds[protocol] {
				of.addProxy(tag, strings.ToLower(protocol), string(settings.ID), string(settings.Flow), string(settings.Password), string(settings.Method))
			}
		}
	}
	return nil
}

// addUser adds a user without proxies.
func (m *marzban) addUser(u marzbanUser) *person {
	of := &person{name: string(u.Username), note: string(u.Note)}
	sub := &of.sub
	sub.LimitBytes, sub.CreatedAt, sub.PeriodStart = max(0, int64(u.Limit)), u.createdAt, u.lastReset
	sub.UsedDown = max(0, int64(u.Used)) // Marzban counts both directions in one
	sub.BytesDown = max(sub.UsedDown, int64(u.Lifetime))
	if u.Expire > 0 {
		sub.ExpiresAt = sensible(time.Unix(int64(u.Expire), 0))
	}
	switch strings.ToLower(string(u.Strategy)) {
	case "", "no_reset":
	case "day", "week":
		sub.Period = strings.ToLower(string(u.Strategy))
	case "month":
		sub.Period = "rolling-month"
	default:
		m.leave("period", of.name, "its bytes were counted anew each "+printable(string(u.Strategy), 20)+", which Core does not do")
	}
	switch strings.ToLower(string(u.Status)) {
	case "disabled":
		sub.Disabled = true
	case "on_hold":
		if u.HoldDuration > 0 {
			sub.ExpiresAt, sub.ExpiresAfterSeconds = nil, min(int64(u.HoldDuration), maxLife)
		}
		if u.HoldTimeout != "" {
			m.leave("on-hold timeout", of.name, "its time would have begun at "+printable(string(u.HoldTimeout), 30)+" without a use; with Core it begins with the first use")
		}
	}
	m.people = append(m.people, of)
	return of
}

// addProxy adds what a user has on an inbound.
func (of *person) addProxy(tag, protocol, id, flow, password, method string) {
	l := login{tag: clean(tag, maxName), Credential: coreapi.Credential{Protocol: protocol}}
	switch protocol {
	case "vless":
		l.ID, l.Flow = id, flow
		of.uuids = slices.Insert(of.uuids, 0, id)
	case "vmess":
		l.ID = id
		of.uuids = append(of.uuids, id)
	case "shadowsocks":
		l.Password, l.Method = password, strings.ToLower(method)
	default:
		l.Password = password
	}
	of.logins = append(of.logins, l)
}

func (m *marzban) readDatabase(ctx context.Context, path string) (err error) {
	d, err := openDatabase(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return m.readTables(ctx, d)
}
