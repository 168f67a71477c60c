package main

import (
	"reflect"

	"github.com/xtls/xray-core/infra/conf"
)

// removed are members that Xray had once, by their names in lower case, with what took
// their place. Xray passes over them without a word, or with a warning, and serves
// something else than was asked for. Where Xray refuses them itself it needs no help.
var removed = map[reflect.Type]map[string]string{
	reflect.TypeFor[conf.FreedomConfig]():           {"ipsblocked": `"finalRules"`},
	reflect.TypeFor[conf.TLSConfig]():               {"verifypeercertinnames": `"verifyPeerCertByName"`},
	reflect.TypeFor[conf.SplitHTTPConfig]():         {"sessionplacement": `"sessionIDPlacement"`, "sessionkey": `"sessionIDKey"`},
	reflect.TypeFor[conf.ShadowsocksServerTarget](): {"uot": "", "uotversion": ""},
	reflect.TypeFor[conf.ShadowsocksClientConfig](): {"uot": "", "uotversion": ""},
}

// removedMasks are masks of UDP that Xray knows by another name now.
var removedMasks = map[string]string{
	"header-dns": `"mkcp-legacy" with the header "dns"`, "header-dtls": `"mkcp-legacy" with the header "dtls"`,
	"header-srtp": `"mkcp-legacy" with the header "srtp"`, "header-utp": `"mkcp-legacy" with the header "utp"`,
	"header-wechat": `"mkcp-legacy" with the header "wechat"`, "header-wireguard": `"mkcp-legacy" with the header "wireguard"`,
	"mkcp-original": `"mkcp-legacy" without settings`, "mkcp-aes128gcm": `"mkcp-legacy" with the password as its value`,
}
