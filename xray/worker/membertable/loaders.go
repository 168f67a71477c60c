package main

import (
	"maps"
	"reflect"
	"slices"
	_ "unsafe" // for go:linkname

	"github.com/xtls/xray-core/infra/conf"
)

// Xray's own tables, which tell by a name what an object is decoded into. infra/conf does
// not export them. Where a name is gone from it the variable is nil: TestXraysTables says so.
var (
	//go:linkname inboundLoader github.com/xtls/xray-core/infra/conf.inboundConfigLoader
	inboundLoader *conf.JSONConfigLoader
	//go:linkname outboundLoader github.com/xtls/xray-core/infra/conf.outboundConfigLoader
	outboundLoader *conf.JSONConfigLoader
	//go:linkname strategyLoader github.com/xtls/xray-core/infra/conf.strategyConfigLoader
	strategyLoader *conf.JSONConfigLoader
	//go:linkname tcpMaskLoader github.com/xtls/xray-core/infra/conf.tcpmaskLoader
	tcpMaskLoader *conf.JSONConfigLoader
	//go:linkname udpMaskLoader github.com/xtls/xray-core/infra/conf.udpmaskLoader
	udpMaskLoader *conf.JSONConfigLoader
)

// loaders are the tables of what the member "settings" of an object is decoded into.
var loaders = map[string]*conf.JSONConfigLoader{
	"inbound": inboundLoader, "outbound": outboundLoader, "strategy": strategyLoader, "tcpMask": tcpMaskLoader, "udpMask": udpMaskLoader,
}

// settingsLoaders names for a type with a kind the table of its settings.
var settingsLoaders = map[reflect.Type]string{
	reflect.TypeFor[conf.StrategyConfig](): "strategy",
	reflect.TypeFor[tcpMask]():             "tcpMask",
	reflect.TypeFor[udpMask]():             "udpMask",
}

// decodedInto is the type into which Xray decodes the object of that name. False where it
// knows no such name.
func decodedInto(loader *conf.JSONConfigLoader, name string) (reflect.Type, bool) {
	if loader == nil {
		return nil, false
	}
	object, err := loader.LoadWithID([]byte("{}"), name)
	if err != nil {
		return nil, false
	}
	return reflect.TypeOf(object).Elem(), true
}

// names are the names that a table has, in their order.
func names(loader *conf.JSONConfigLoader) []string {
	cache := reflect.ValueOf(loader).Elem().FieldByName("cache")
	if !cache.IsValid() || cache.Kind() != reflect.Map {
		return nil
	}
	found := map[string]bool{}
	for _, key := range cache.MapKeys() {
		found[key.String()] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// passedOver are members that panels write and that Xray passes over:
// xray/check/unusedmembers.go warns of them. Those of clients are in xray/parse/clients.go.
var passedOver = map[reflect.Type][]string{
	reflect.TypeFor[conf.InboundDetourConfig](): {"allocate"},
	reflect.TypeFor[conf.VLessInboundConfig]():  {"encryption", "selectedAuth"},
	reflect.TypeFor[conf.VMessInboundConfig]():  {"detour", "disableInsecureEncryption"},
	reflect.TypeFor[conf.DokodemoConfig]():      {"timeout"},
	reflect.TypeFor[conf.StreamConfig]():        {"externalProxy"},
	reflect.TypeFor[conf.REALITYConfig]():       {"maxClient", "minClient", "settings"},
	reflect.TypeFor[conf.HysteriaConfig]():      {"protocol"},
	reflect.TypeFor[conf.SocketConfig]():        {"tcpNoDelay"},

	reflect.TypeFor[conf.ShadowsocksServerConfig](): {"ivCheck"},
	reflect.TypeFor[conf.TrojanServerConfig]():      {"decryption"},
	reflect.TypeFor[conf.RouterConfig]():            {"domainMatcher"},
	reflect.TypeFor[conf.Xicmp]():                   {"ip"},
	// Of older versions of Xray.
	reflect.TypeFor[conf.WireGuardConfig](): {"workers"},
	reflect.TypeFor[conf.KCPConfig]():       {"congestion", "readBufferSize", "writeBufferSize"},
	reflect.TypeFor[conf.TLSConfig]():       {"echForceQuery", "settings"},
}

// ours are members that this project reads of Xray's objects.
var ours = map[reflect.Type][]string{
	reflect.TypeFor[conf.InboundDetourConfig](): {"trustedProxies"},
}
