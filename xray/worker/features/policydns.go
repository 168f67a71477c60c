package features

import (
	"context"
	"encoding/json"
	"sync/atomic"

	"nodeagent/internal/fault"

	xdns "github.com/xtls/xray-core/app/dns"
	xpolicy "github.com/xtls/xray-core/app/policy"
	"github.com/xtls/xray-core/common/net"
	"github.com/xtls/xray-core/features/dns"
	"github.com/xtls/xray-core/features/dns/localdns"
	"github.com/xtls/xray-core/features/policy"
	"github.com/xtls/xray-core/infra/conf"
)

// Policy is xray-core's policy behind one pointer. It is asked for every
// connection: those that are open keep what they began with.
type Policy struct {
	current atomic.Pointer[policy.Manager]
}

// NewPolicy makes a policy with xray-core's defaults.
func NewPolicy() *Policy {
	p := &Policy{}
	p.set(policy.DefaultManager{})
	return p
}

func (p *Policy) set(m policy.Manager) { p.current.Store(&m) }

// Replace makes raw, Xray's policy object or nil, the policy.
func (p *Policy) Replace(ctx context.Context, raw json.RawMessage) error {
	if raw == nil {
		p.set(policy.DefaultManager{})
		return nil
	}
	message, err := buildWith[xpolicy.Config, conf.PolicyConfig](raw)
	if err != nil {
		return fault.Caused(err, "", "build policy: %v", err)
	}
	config := message.(*xpolicy.Config)
	// The dispatcher counts: Xray's own counters would do the work twice (and hide
	// hysteria's users). Not an empty System: xray-core asks one that is there for
	// its Stats (app/policy/config.go).
	config.System = nil
	for _, level := range config.Level {
		level.Stats = nil
	}
	next, err := xpolicy.New(ctx, config)
	if err != nil {
		return fault.Caused(err, "", "make policy: %v", err)
	}
	p.set(next)
	return nil
}

// Type is the feature of xray-core that Policy is.
func (*Policy) Type() any { return policy.ManagerType() }

// Start does nothing.
func (*Policy) Start() error { return nil }

// Close does nothing.
func (*Policy) Close() error { return nil }

// ForLevel returns the policy of a user level.
func (p *Policy) ForLevel(level uint32) policy.Session {
	return (*p.current.Load()).ForLevel(level)
}

// ForSystem returns the policy that holds for the whole process.
func (p *Policy) ForSystem() policy.System { return (*p.current.Load()).ForSystem() }

// DNS is xray-core's DNS behind one pointer. Questions that are under way are
// answered by the one that was asked.
type DNS struct {
	ctx     context.Context
	current atomic.Pointer[dns.Client]
}

// NewDNS makes a DNS client that asks the host's own resolver.
func NewDNS(ctx context.Context) *DNS {
	d := &DNS{ctx: ctx}
	d.set(localdns.New())
	return d
}

func (d *DNS) set(c dns.Client) { d.current.Store(&c) }

// Replace makes raw, Xray's dns object, the DNS; nil is the host's own.
func (d *DNS) Replace(raw json.RawMessage) error {
	var next dns.Client = localdns.New()
	if raw != nil {
		message, err := buildWith[xdns.Config, conf.DNSConfig](raw)
		if err != nil {
			return fault.Caused(err, "", "build dns: %v", err)
		}
		if next, err = xdns.New(d.ctx, message.(*xdns.Config)); err != nil {
			return fault.Caused(err, "", "make dns: %v", err)
		}
	}
	if err := next.Start(); err != nil {
		return fault.Caused(err, "", "start dns: %v", err)
	}
	old := *d.current.Load()
	d.set(next)
	return old.Close()
}

// Type is the feature of xray-core that DNS is.
func (*DNS) Type() any { return dns.ClientType() }

// Start does nothing: a client is started before it is used.
func (*DNS) Start() error { return nil }

// Close does nothing.
func (*DNS) Close() error { return nil }

// LookupIP asks the DNS of the moment.
func (d *DNS) LookupIP(domain string, option dns.IPOption) ([]net.IP, uint32, error) {
	return (*d.current.Load()).LookupIP(domain, option)
}

// IsOwnLink is what xray-core's dns outbound asks, so that questions of the DNS
// itself do not go round in a circle.
func (d *DNS) IsOwnLink(ctx context.Context) bool {
	own, is := (*d.current.Load()).(interface {
		IsOwnLink(ctx context.Context) bool
	})
	return is && own.IsOwnLink(ctx)
}

var (
	_ policy.Manager = (*Policy)(nil)
	_ dns.Client     = (*DNS)(nil)
)
