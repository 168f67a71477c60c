package importer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nodeagent/coreapi"
)

// Remnawave reads answers of remnawave's API (version 2), one in each file, in any order: GET
// /api/users, of which there may be several pages, GET /api/config-profiles, GET
// /api/internal-squads and GET /api/hosts. profile is the name or UUID of the configuration profile
// of the node; it may be empty where there is one alone.
func Remnawave(paths []string, profile string, o Options) (r Read, err error) {
	w := remnawave{panel: panel{kind: "remnawave"}, squads: map[string][]string{}}
	for _, path := range paths {
		if err := w.readFile(path); err != nil {
			return r, fmt.Errorf("read %s: %w", path, err)
		}
	}
	if len(w.users) == 0 {
		return r, errors.New("no file has users: give the answer of GET /api/users")
	}
	if err := w.readProfile(profile); err != nil {
		return r, err
	}
	w.readHosts()
	for _, u := range w.users {
		w.addUser(u)
	}
	w.notes = append(w.notes, "the panel's own subscription links end with it; 'node-core subscription show' has the new one of each user")
	return w.finish(o)
}

type remnawave struct {
	panel
	users    []remnawaveUser
	profiles []remnawaveProfile
	squads   map[string][]string // the UUIDs of inbounds by that of the squad
	hosts    []remnawaveHost
	byUUID   map[string]*inbound
}

// The members of the answers (libs/contract/models of remnawave/backend).
type (
	remnawaveUser struct {
		UUID         string   `json:"uuid"`
		Username     word     `json:"username"`
		Status       string   `json:"status"`
		Limit        flexible `json:"trafficLimitBytes"`
		Strategy     string   `json:"trafficLimitStrategy"`
		ExpireAt     string   `json:"expireAt"`
		Telegram     word     `json:"telegramId"`
		Email        word     `json:"email"`
		Description  word     `json:"description"`
		Tag          word     `json:"tag"`
		Devices      flexible `json:"hwidDeviceLimit"`
		Trojan       string   `json:"trojanPassword"`
		VLESS        string   `json:"vlessUuid"`
		Shadowsocks  string   `json:"ssPassword"`
		LastReset    string   `json:"lastTrafficResetAt"`
		CreatedAt    string   `json:"createdAt"`
		Used         flexible `json:"usedTrafficBytes"`         // of version 1
		LifetimeUsed flexible `json:"lifetimeUsedTrafficBytes"` // of version 1
		Traffic      *struct {
			Used     flexible `json:"usedTrafficBytes"`
			Lifetime flexible `json:"lifetimeUsedTrafficBytes"`
		} `json:"userTraffic"`
		Squads []struct {
			UUID string `json:"uuid"`
		} `json:"activeInternalSquads"`
	}
	remnawaveInbound struct {
		UUID string `json:"uuid"`
		Tag  string `json:"tag"`
	}
	remnawaveProfile struct {
		UUID     string             `json:"uuid"`
		Name     string             `json:"name"`
		Config   json.RawMessage    `json:"config"`
		Inbounds []remnawaveInbound `json:"inbounds"`
	}
	remnawaveSquad struct {
		UUID     string             `json:"uuid"`
		Inbounds []remnawaveInbound `json:"inbounds"`
	}
	remnawaveHost struct {
		Remark      word     `json:"remark"`
		Address     word     `json:"address"`
		Port        flexible `json:"port"`
		Path        word     `json:"path"`
		SNI         word     `json:"sni"`
		Host        word     `json:"host"`
		ALPN        word     `json:"alpn"`
		Fingerprint word     `json:"fingerprint"`
		Disabled    bool     `json:"isDisabled"`
		Hidden      bool     `json:"isHidden"`
		Security    string   `json:"securityLayer"`
		Position    flexible `json:"viewPosition"`
		Inbound     struct {
			UUID string `json:"configProfileInboundUuid"`
		} `json:"inbound"`
	}
)

// readFile reads one answer, which is the member response of an object or stands by itself.
func (w *remnawave) readFile(path string) error {
	raw, err := readFile(path)
	if err != nil {
		return err
	}
	var outer struct{ Response json.RawMessage }
	if err := json.Unmarshal(raw, &outer); err == nil && outer.Response != nil {
		raw = outer.Response
	}
	if strings.HasPrefix(strings.TrimSpace(string(raw)), "[") { // GET /api/hosts is a list
		return json.Unmarshal(raw, &w.hosts)
	}
	var answer struct {
		Users    []remnawaveUser    `json:"users"`
		Profiles []remnawaveProfile `json:"configProfiles"`
		Squads   []remnawaveSquad   `json:"internalSquads"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return err
	}
	if answer.Users == nil && answer.Profiles == nil && answer.Squads == nil {
		return errors.New("it is none of the answers of GET /api/users, /api/config-profiles, /api/internal-squads and /api/hosts")
	}
	w.users, w.profiles = append(w.users, answer.Users...), append(w.profiles, answer.Profiles...)
	if len(w.users) > maxRows {
		return fmt.Errorf("there are more than %d users", maxRows)
	}
	for _, s := range answer.Squads {
		for _, in := range s.Inbounds {
			w.squads[s.UUID] = append(w.squads[s.UUID], in.UUID)
		}
	}
	return nil
}

// readProfile reads the inbounds of the profile.
func (w *remnawave) readProfile(name string) error {
	var names []string
	for _, p := range w.profiles {
		names = append(names, p.Name)
	}
	at := slices.IndexFunc(w.profiles, func(p remnawaveProfile) bool { return name == "" || p.Name == name || p.UUID == name })
	switch {
	case len(w.profiles) == 0:
		return errors.New("no file has configuration profiles, which the inbounds are in: give the answer of GET /api/config-profiles")
	case at < 0 || name == "" && len(names) > 1:
		return fmt.Errorf("name the configuration profile of the node with --profile: %s", strings.Join(names, ", "))
	}
	p := w.profiles[at]
	w.byUUID = map[string]*inbound{}
	if err := w.readXrayConfig(withoutComments(p.Config)); err != nil {
		return fmt.Errorf("read the configuration profile %s: %w", p.Name, err)
	}
	for _, in := range p.Inbounds {
		if n := slices.IndexFunc(w.inbounds, func(i *inbound) bool { return i.tag == in.Tag }); n >= 0 {
			w.byUUID[in.UUID] = w.inbounds[n]
		}
	}
	return nil
}

func (w *remnawave) readHosts() {
	slices.SortStableFunc(w.hosts, func(a, b remnawaveHost) int { return int(max(-1, min(1, a.Position-b.Position))) })
	for _, host := range w.hosts {
		in := w.byUUID[host.Inbound.UUID]
		if in == nil {
			continue // of another profile
		}
		if len(in.hosts) == maxParts {
			w.leave("host", string(host.Remark), fmt.Sprintf("inbound %s has more than %d", in.tag, maxParts))
			continue
		}
		h := hostEdit(string(host.Address), int64(host.Port), strings.ToLower(host.Security), string(host.Remark))
		setHostTexts(&h, string(host.SNI), string(host.Host), string(host.Path), string(host.Fingerprint))
		if host.ALPN != "" {
			h.ALPN = new(clean(string(host.ALPN), maxName))
		}
		if host.Disabled || host.Hidden {
			h.Enabled = new(false)
		}
		in.hosts = append(in.hosts, h)
	}
}

func (w *remnawave) addUser(u remnawaveUser) {
	of := &person{name: string(u.Username), note: string(u.Description), origin: u.UUID, uuids: []string{u.VLESS}, contact: map[string]string{}}
	if u.Tag != "" {
		of.note = strings.TrimSpace(of.note + " [" + string(u.Tag) + "]")
	}
	if u.Telegram != "" {
		of.contact["telegram"] = string(u.Telegram)
	}
	if u.Email != "" {
		of.contact["email"] = string(u.Email)
	}
	if u.Devices > 0 {
		w.leave("device limit", of.name, fmt.Sprintf("a limit of %d devices", int64(u.Devices)))
	}
	w.setTerms(of, u)
	seen := map[*inbound]bool{}
	for _, squad := range u.Squads {
		for _, id := range w.squads[squad.UUID] {
			in := w.byUUID[id]
			if in == nil || seen[in] {
				continue
			}
			seen[in] = true
			l := login{tag: in.tag, Credential: coreapi.Credential{Protocol: in.protocol}}
			switch in.protocol {
			case "vless":
				if l.ID = u.VLESS; in.vision { // as the panel gives it to each client
					l.Flow = "xtls-rprx-vision"
				}
			case "trojan", "hysteria":
				l.Password = u.Trojan
			case "shadowsocks":
				l.Password, l.Method = u.Shadowsocks, defaultMethod
			default:
				continue
			}
			of.logins = append(of.logins, l)
		}
	}
	w.people = append(w.people, of)
}

func (w *remnawave) setTerms(of *person, u remnawaveUser) {
	sub := &of.sub
	used, lifetime := u.Used, u.LifetimeUsed
	if u.Traffic != nil {
		used, lifetime = u.Traffic.Used, u.Traffic.Lifetime
	}
	sub.LimitBytes = max(0, int64(u.Limit))
	sub.UsedDown = max(0, int64(used)) // the panel counts both directions in one
	sub.BytesDown = max(sub.UsedDown, int64(lifetime))
	sub.ExpiresAt, sub.CreatedAt, sub.PeriodStart = timeOf(u.ExpireAt), timeOf(u.CreatedAt), timeOf(u.LastReset)
	sub.Disabled = strings.EqualFold(u.Status, "DISABLED")
	switch strings.ToUpper(u.Strategy) {
	case "", "NO_RESET":
	case "DAY", "WEEK", "MONTH":
		sub.Period = strings.ToLower(u.Strategy)
	case "MONTH_ROLLING":
		sub.Period = "rolling-month"
	default:
		w.leave("period", of.name, "its bytes were counted anew each "+printable(u.Strategy, 20)+", which Core does not do")
	}
}

// timeOf reads a time of JSON, nil for none.
func timeOf(text string) *time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil
	}
	return sensible(t)
}
