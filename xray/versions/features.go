package versions

// feature is something that not every version of Xray takes.
type feature struct {
	name string // in messages
	// Where it is: in an inbound, an outbound or both, of these protocols (none for all), at
	// this path (see find), and with one of these values (none for any).
	in        side
	protocols []string
	path      string
	is        []string
	// since is the first version that has it, until the first one that no longer does.
	// A zero Version is no limit.
	since, until Version
	instead      string // what the other versions have in its place; empty for nothing
}

type side int

const (
	inBoth side = iota
	inInbound
	inOutbound
)

// xhttp and mask begin paths. The settings of XHTTP may stand in "extra" too.
const (
	xhttp   = "streamSettings.xhttpSettings|splithttpSettings.extra?."
	mKCP    = "streamSettings.kcpSettings."
	tcpMask = "streamSettings.finalmask.tcp[]."
	udpMask = "streamSettings.finalmask.udp[]."
)

// usersProtocols are those whose inbounds list "users" beside the older name.
var usersProtocols = []string{"vless", "vmess", "trojan", "shadowsocks", "hysteria", "socks", "mixed", "http"}

// oldMasks became one in 26.6.1.
var oldMasks = []string{"header-dns", "header-dtls", "header-srtp", "header-utp", "header-wechat", "header-wireguard", "mkcp-original", "mkcp-aes128gcm"}

// features are the differences between Xray 26.3.27, which agents embedded first, and the
// version that they embed now. Each is what Xray or the node refuses where it does not know it.
var features = []feature{
	{name: `"users" of an inbound`, in: inInbound, protocols: usersProtocols, path: "settings.users", since: Version{26, 5, 9}, instead: `"clients" or "accounts"`},
	{name: `"method" of streamSettings`, path: "streamSettings.method", since: Version{26, 7, 11}, instead: `"network"`},
	{name: `"allowedNetwork" of a tunnel`, in: inInbound, protocols: []string{"tunnel", "dokodemo-door"}, path: "settings.allowedNetwork", since: Version{26, 5, 9}, instead: `"network"`},
	{name: `"rewriteAddress" of a tunnel`, in: inInbound, protocols: []string{"tunnel", "dokodemo-door"}, path: "settings.rewriteAddress", since: Version{26, 5, 9}, instead: `"address"`},
	{name: `"rewritePort" of a tunnel`, in: inInbound, protocols: []string{"tunnel", "dokodemo-door"}, path: "settings.rewritePort", since: Version{26, 5, 9}, instead: `"port"`},
	{name: `"ipsExcluded" of sniffing`, in: inInbound, path: "sniffing.ipsExcluded", since: Version{26, 4, 13}},
	{name: `"finalmask" of a WireGuard inbound`, in: inInbound, protocols: []string{"wireguard"}, path: "streamSettings.finalmask", since: Version{26, 6, 22}},
	{name: `the cipher "none"`, protocols: []string{"shadowsocks"}, path: "settings.method", is: []string{"none", "plain"}, until: Version{26, 7, 11}, instead: "another cipher"},
	{name: `the cipher "none"`, in: inOutbound, protocols: []string{"shadowsocks"}, path: "settings.servers[].method", is: []string{"none", "plain"}, until: Version{26, 7, 11}, instead: "another cipher"},

	{name: `"finalRules" of freedom`, in: inOutbound, protocols: []string{"freedom", "direct"}, path: "settings.finalRules", since: Version{26, 5, 3}},
	{name: `"ipsBlocked" of freedom`, in: inOutbound, protocols: []string{"freedom", "direct"}, path: "settings.ipsBlocked", since: Version{26, 4, 15}, until: Version{26, 5, 3}, instead: `"finalRules"`},
	{name: `"rules" of a dns outbound`, in: inOutbound, protocols: []string{"dns"}, path: "settings.rules", since: Version{26, 4, 25}},
	{name: `"rewriteNetwork" of a dns outbound`, in: inOutbound, protocols: []string{"dns"}, path: "settings.rewriteNetwork", since: Version{26, 5, 9}, instead: `"network"`},
	{name: `"rewriteAddress" of a dns outbound`, in: inOutbound, protocols: []string{"dns"}, path: "settings.rewriteAddress", since: Version{26, 5, 9}, instead: `"address"`},
	{name: `"rewritePort" of a dns outbound`, in: inOutbound, protocols: []string{"dns"}, path: "settings.rewritePort", since: Version{26, 5, 9}, instead: `"port"`},
	{name: `"sniffing" of a loopback outbound`, in: inOutbound, protocols: []string{"loopback"}, path: "settings.sniffing", since: Version{26, 6, 22}},
	{name: `"uot" of Shadowsocks`, in: inOutbound, protocols: []string{"shadowsocks"}, path: "settings.uot", until: Version{26, 6, 22}},
	{name: `"uot" of Shadowsocks`, in: inOutbound, protocols: []string{"shadowsocks"}, path: "settings.servers[].uot", until: Version{26, 6, 22}},

	{name: `"sessionIDPlacement" of XHTTP`, path: xhttp + "sessionIDPlacement", since: Version{26, 6, 22}, instead: `"sessionPlacement"`},
	{name: `"sessionIDKey" of XHTTP`, path: xhttp + "sessionIDKey", since: Version{26, 6, 22}, instead: `"sessionKey"`},
	{name: `"sessionPlacement" of XHTTP`, path: xhttp + "sessionPlacement", until: Version{26, 6, 22}, instead: `"sessionIDPlacement"`},
	{name: `"sessionKey" of XHTTP`, path: xhttp + "sessionKey", until: Version{26, 6, 22}, instead: `"sessionIDKey"`},
	{name: `"sessionIDTable" of XHTTP`, path: xhttp + "sessionIDTable", since: Version{26, 6, 22}},
	{name: `"sessionIDLength" of XHTTP`, path: xhttp + "sessionIDLength", since: Version{26, 6, 22}},
	{name: `"cwndMultiplier" of mKCP`, path: mKCP + "cwndMultiplier", since: Version{26, 4, 13}},
	{name: `"maxSendingWindow" of mKCP`, path: mKCP + "maxSendingWindow", since: Version{26, 4, 13}},
	{name: `"verifyPeerCertInNames" of TLS`, path: "streamSettings.tlsSettings.verifyPeerCertInNames", until: Version{26, 6, 22}, instead: `"verifyPeerCertByName"`},

	{name: `the mask "xmc"`, path: tcpMask + "type", is: []string{"xmc"}, since: Version{26, 7, 11}},
	{name: `"lengths" of the mask "fragment"`, path: tcpMask + "settings.lengths", since: Version{26, 6, 22}, instead: `"length"`},
	{name: `"delays" of the mask "fragment"`, path: tcpMask + "settings.delays", since: Version{26, 6, 22}, instead: `"delay"`},
	{name: `"packetSize" of the mask "salamander"`, path: udpMask + "settings.packetSize", since: Version{26, 6, 1}},
	{name: `the mask "realm"`, path: udpMask + "type", is: []string{"realm"}, since: Version{26, 6, 1}},
	{name: `the mask "mkcp-legacy"`, path: udpMask + "type", is: []string{"mkcp-legacy"}, since: Version{26, 6, 1}, instead: `a mask of the kinds "header-..." and "mkcp-..."`},
	{name: `a mask of the kinds "header-..." and "mkcp-..."`, path: udpMask + "type", is: oldMasks, until: Version{26, 6, 1}, instead: `the mask "mkcp-legacy"`},
	{name: `"domains" of the mask "xdns"`, path: udpMask + "settings.domains", since: Version{26, 4, 13}, instead: `"domain"`},
	{name: `"resolvers" of the mask "xdns"`, path: udpMask + "settings.resolvers", since: Version{26, 4, 13}, instead: `"domain"`},
	{name: `"domain" of the mask "xdns"`, path: udpMask + "settings.domain", until: Version{26, 4, 13}, instead: `"domains" or "resolvers"`},
	{name: `"bbrProfile" of quicParams`, path: "streamSettings.finalmask.quicParams.bbrProfile", since: Version{26, 4, 13}},
}
