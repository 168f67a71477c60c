package importer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"nodeagent/coreapi"
)

// ThreeXUI reads the database of 3x-ui, x-ui.db, of version 2 or 3.
func ThreeXUI(ctx context.Context, path string, o Options) (r Read, err error) {
	d, err := openDatabase(ctx, path)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	x := threeXUI{panel: panel{kind: "3x-ui"}, d: d, now: o.Now, byEmail: map[string]*person{}, byID: map[int64]*inbound{}, clients: map[string]xuiClient{}}
	if err := x.read(ctx); err != nil {
		return r, fmt.Errorf("read 3x-ui's database: %w", err)
	}
	return x.finish(o)
}

type threeXUI struct {
	panel
	d       *database
	now     time.Time
	byEmail map[string]*person
	byID    map[int64]*inbound
	clients map[string]xuiClient // the table clients, by email
	off     map[string]bool      // emails that an inbound has disabled
}

func (x *threeXUI) read(ctx context.Context) error {
	x.off = map[string]bool{}
	for _, step := range []func(context.Context) error{x.readSettings, x.readClients, x.readInbounds, x.readTraffic, x.readHosts, x.readOthers} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// optional is an error that is not one where the table is missing, as in older versions.
func optional(err error) error {
	if errors.Is(err, errNoTable) {
		return nil
	}
	return err
}

func (x *threeXUI) readSettings(ctx context.Context) error {
	secret := ""
	err := x.d.each(ctx, "settings", []string{"key", "value"}, nil, func(r *row) error {
		switch value := r.text("value"); r.text("key") {
		case "panelGuid":
			x.id = printable(value, 40)
		case "secret":
			sum := sha256.Sum256([]byte(value))
			secret = hex.EncodeToString(sum[:8])
		case "xrayTemplateConfig":
			if value != "" {
				x.leave("routing", "xrayTemplateConfig", "the panel's own outbounds, routing and DNS: add them with 'node-core outbound add' and 'node-core routing add'")
			}
		}
		return nil
	})
	if x.id == "" {
		x.id = secret
	}
	return err
}

// xuiClient is a client as an inbound's settings have it, and as the table clients of version 3 has
// it.
type xuiClient struct {
	ID           word      `json:"id"`
	Password     word      `json:"password"`
	Auth         word      `json:"auth"`
	Flow         word      `json:"flow"`
	Method       word      `json:"method"`
	Email        word      `json:"email"`
	LimitIP      flexible  `json:"limitIp"`
	Total        flexible  `json:"totalGB"` // bytes, whatever the name says
	ExpiryTime   flexible  `json:"expiryTime"`
	Enable       *flexible `json:"enable"`
	Telegram     word      `json:"tgId"`
	SubID        word      `json:"subId"`
	Comment      word      `json:"comment"`
	Reset        flexible  `json:"reset"`
	CreatedAt    flexible  `json:"created_at"`
	PrivateKey   word      `json:"privateKey"`
	PublicKey    word      `json:"publicKey"`
	PreSharedKey word      `json:"preSharedKey"`
	AllowedIPs   []word    `json:"allowedIPs"`
	KeepAlive    flexible  `json:"keepAlive"`

	group, period string
	devices       int64
}

func (x *threeXUI) readClients(ctx context.Context) error {
	return optional(x.d.each(ctx, "clients", []string{"email"}, []string{"uuid", "comment", "group_name", "traffic_reset", "limit_hwid", "tg_id"}, func(r *row) error {
		x.clients[r.text("email")] = xuiClient{
			ID: word(r.text("uuid")), Comment: word(r.text("comment")), Telegram: word(r.text("tg_id")),
			group: r.text("group_name"), period: r.text("traffic_reset"), devices: r.number64("limit_hwid"),
		}
		return nil
	}))
}

func (x *threeXUI) readInbounds(ctx context.Context) error {
	needed := []string{"id", "port", "protocol", "settings", "stream_settings", "tag"}
	others := []string{"enable", "remark", "listen", "sniffing", "total", "expiry_time", "traffic_reset", "node_id"}
	return x.d.each(ctx, "inbounds", needed, others, func(r *row) error {
		name := printable(r.text("tag"), maxName)
		if r.number64("node_id") != 0 {
			x.leave("inbound", name, fmt.Sprintf("it is on node %d of the panel, and not on the panel's own host: import it from there", r.number64("node_id")))
			return nil
		}
		settings, err := objectOf(r.text("settings"))
		if err != nil {
			return fmt.Errorf("settings of inbound %s: %w", name, err)
		}
		in, err := x.readInbound(r, settings)
		if err != nil {
			x.leave("inbound", name, err.Error())
			return nil
		}
		x.inbounds, x.byID[r.number64("id")] = append(x.inbounds, in), in
		if r.number64("total") > 0 || r.number64("expiry_time") > 0 {
			x.leave("limit", in.tag, "a limit or an end of the inbound as a whole: Core limits subscriptions")
		}
		return x.readMembers(r, in, settings)
	})
}

func (x *threeXUI) readInbound(r *row, settings map[string]any) (*inbound, error) {
	config := map[string]any{"tag": r.text("tag"), "protocol": r.text("protocol"), "port": json.Number(fmt.Sprint(r.number64("port")))}
	if settings != nil {
		config["settings"] = maps.Clone(settings)
	}
	if listen := r.text("listen"); listen != "" {
		config["listen"] = listen
	}
	for column, name := range map[string]string{"stream_settings": "streamSettings", "sniffing": "sniffing"} {
		object, err := objectOf(r.text(column))
		if err != nil {
			return nil, fmt.Errorf("its %s: %w", column, err)
		}
		if object != nil {
			config[name] = object
		}
	}
	proxies := member(map[string]any{"s": config["streamSettings"]}, "s")["externalProxy"]
	in, err := x.newInbound(config)
	if err != nil {
		return nil, err
	}
	in.note, in.disabled = r.text("remark"), !r.flag("enable", true)
	in.hosts = hostsOfProxies(proxies)
	return in, nil
}

// readMembers reads the clients, accounts and peers of an inbound.
func (x *threeXUI) readMembers(r *row, in *inbound, settings map[string]any) error {
	var all struct {
		Clients  []xuiClient
		Accounts []struct{ User, Pass word }
		Peers    []xuiClient
	}
	if raw := r.text("settings"); raw != "" {
		if err := json.Unmarshal([]byte(raw), &all); err != nil {
			return fmt.Errorf("clients of inbound %s: %w", in.tag, err)
		}
	}
	for n, c := range all.Clients {
		if c.Email == "" {
			c.Email = word(fmt.Sprintf("%s-%d", in.tag, n+1))
		}
		x.addClient(in, c, r.text("traffic_reset"))
	}
	switch in.protocol {
	case "socks", "http", "mixed":
		for _, a := range all.Accounts {
			name := string(a.User) + "@" + in.tag
			l := login{tag: in.tag, Credential: coreapi.Credential{Protocol: in.protocol, ID: string(a.User), Password: string(a.Pass)}}
			x.people = append(x.people, &person{name: name, note: "an account of the inbound " + in.tag, logins: []login{l}})
		}
		delete(member(in.config, "settings"), "accounts")
		if text(settings["auth"]) == "noauth" || in.protocol == "http" && len(all.Accounts) == 0 {
			x.leave("open proxy", in.tag, "the inbound let everybody in; with Core a client needs a name and a password")
		}
	case "wireguard":
		delete(member(in.config, "settings"), "peers")
		for n, c := range all.Peers {
			c.Email = word(fmt.Sprintf("%s-peer-%d", in.tag, n+1))
			x.addClient(in, c, "")
		}
	}
	return nil
}

// addClient adds a client of an inbound. A client who is on several inbounds is one person.
func (x *threeXUI) addClient(in *inbound, c xuiClient, inboundPeriod string) {
	email := string(c.Email)
	of := x.byEmail[email]
	if of == nil {
		of = &person{name: email, uuids: []string{string(c.ID)}}
		x.setTerms(of, c, inboundPeriod)
		x.byEmail[email] = of
		x.people = append(x.people, of)
	}
	if c.Enable != nil && *c.Enable == 0 {
		x.off[email] = true
	}
	l := login{tag: in.tag, Credential: coreapi.Credential{Protocol: in.protocol}}
	switch in.protocol {
	case "vless":
		l.ID, l.Flow = string(c.ID), string(c.Flow)
	case "vmess":
		l.ID = string(c.ID)
	case "trojan":
		l.Password = string(c.Password)
	case "shadowsocks":
		l.Password, l.Method = string(c.Password), strings.ToLower(string(c.Method))
	case "hysteria":
		l.Password = string(c.Auth)
	case "wireguard":
		l.PrivateKey, l.PublicKey, l.PreSharedKey, l.KeepAlive = string(c.PrivateKey), string(c.PublicKey), string(c.PreSharedKey), int64(c.KeepAlive)
		// The client's link has the private key, so that only the public one of it lets the client in.
		if public := publicOf(l.PrivateKey); public != "" && public != l.PublicKey {
			if l.PublicKey != "" {
				x.notes = append(x.notes, fmt.Sprintf("client %s: its public key of WireGuard is not the one of its private key, which its link has; the latter is taken", printable(email, maxName)))
			}
			l.PublicKey = public
		}
		for _, address := range c.AllowedIPs {
			l.AllowedIPs = append(l.AllowedIPs, string(address))
		}
	default:
		return
	}
	of.logins = append(of.logins, l)
}
