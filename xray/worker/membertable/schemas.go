package main

import (
	"encoding/json"
	"reflect"

	"github.com/xtls/xray-core/infra/conf"
	"github.com/xtls/xray-core/proxy/vless"
)

// clients are the client objects of the protocols with a user manager.
var clients = map[string]reflect.Type{
	"vless": reflect.TypeFor[vlessClient](), "vmess": reflect.TypeFor[vmessClient](), "trojan": reflect.TypeFor[conf.TrojanUserConfig](),
	"shadowsocks": reflect.TypeFor[conf.ShadowsocksUserConfig](), "hysteria": reflect.TypeFor[conf.HysteriaUserConfig](), "wireguard": reflect.TypeFor[conf.WireGuardPeerConfig](),
}

// userMembers is what Xray reads of every client beside the account.
type userMembers struct {
	Level json.RawMessage `json:"level"`
	Email json.RawMessage `json:"email"`
}

type vlessClient struct {
	userMembers
	vless.Account
}

type vmessClient struct {
	userMembers
	conf.VMessAccount
}

// routingRule has the members of Xray's rule, whose type is local to a function
// (infra/conf/router.go, parseFieldRule). "type" is read by nobody and stands
// in every older configuration.
type routingRule struct {
	conf.RouterRule
	Type       json.RawMessage         `json:"type"`
	Domain     json.RawMessage         `json:"domain"`
	Domains    json.RawMessage         `json:"domains"`
	IP         json.RawMessage         `json:"ip"`
	Port       json.RawMessage         `json:"port"`
	Network    json.RawMessage         `json:"network"`
	SourceIP   json.RawMessage         `json:"sourceIP"`
	Source     json.RawMessage         `json:"source"`
	SourcePort json.RawMessage         `json:"sourcePort"`
	User       json.RawMessage         `json:"user"`
	VlessRoute json.RawMessage         `json:"vlessRoute"`
	InboundTag json.RawMessage         `json:"inboundTag"`
	Protocols  json.RawMessage         `json:"protocol"`
	Attributes map[string]string       `json:"attrs"`
	LocalIP    json.RawMessage         `json:"localIP"`
	LocalPort  json.RawMessage         `json:"localPort"`
	Matcher    json.RawMessage         `json:"domainMatcher"` // written by panels, and read by nobody
	Process    json.RawMessage         `json:"process"`
	Webhook    *conf.WebhookRuleConfig `json:"webhook"`
}

// A type that has a decoder of its own in Xray has the same members here and no method.
type (
	nameServer    conf.NameServerConfig
	happyEyeballs conf.HappyEyeballsConfig
)

// tcpHeader has the members of both of its kinds: none and http.
type tcpHeader struct {
	Type json.RawMessage `json:"type"`
	conf.Authenticator
}

type socksUser struct {
	userMembers
	conf.SocksAccount
}

type httpUser struct {
	userMembers
	conf.HTTPAccount
}

type (
	tcpMask conf.Mask
	udpMask conf.Mask
)

// schemas tells what a member is decoded into in Xray's second step, or has in its place
// where Xray's type decodes itself.
var schemas = map[reflect.Type]map[string]reflect.Type{
	reflect.TypeFor[conf.VLessOutboundVnext]():  {"users": reflect.TypeFor[[]vlessClient]()},
	reflect.TypeFor[conf.VMessOutboundTarget](): {"users": reflect.TypeFor[[]vmessClient]()},
	reflect.TypeFor[conf.SocksRemoteConfig]():   {"users": reflect.TypeFor[[]socksUser]()},
	reflect.TypeFor[conf.HTTPRemoteConfig]():    {"users": reflect.TypeFor[[]httpUser]()},
	reflect.TypeFor[conf.SplitHTTPConfig]():     {"extra": reflect.TypeFor[conf.SplitHTTPConfig]()},
	reflect.TypeFor[conf.RouterConfig]():        {"rules": reflect.TypeFor[[]routingRule]()},
	reflect.TypeFor[conf.DNSConfig]():           {"servers": reflect.TypeFor[[]nameServer]()},
	reflect.TypeFor[conf.TCPConfig]():           {"header": reflect.TypeFor[tcpHeader]()},
	reflect.TypeFor[conf.SocketConfig]():        {"happyeyeballs": reflect.TypeFor[happyEyeballs]()},
	reflect.TypeFor[conf.FinalMask]():           {"tcp": reflect.TypeFor[[]tcpMask](), "udp": reflect.TypeFor[[]udpMask]()},
}
