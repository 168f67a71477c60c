package e2e

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// linkRow is a row of the table of docs/links.md.
type linkRow struct {
	protocolRow
	line string
	// has says by the name of a column, such as mihomo, whether the form has words for the inbound.
	has map[string]bool
}

// tableColumns are the columns of the table of docs/links.md behind the three that say what the inbound is.
var tableColumns = []string{"link", "Xray", "mihomo", "sing-box"}

// linkTable reads the table of docs/links.md, with an inbound for each row but that of WireGuard, which
// TestImport tries: its peers come from another panel.
func linkTable(t *testing.T, reality map[string]any) (rows []linkRow) {
	t.Helper()
	document, err := os.ReadFile("../../docs/links.md")
	must(t, err)
	for line := range strings.Lines(string(document)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | ")
		if len(cells) != 3+len(tableColumns) || cells[0] == "protocol" || cells[0] == "wireguard" {
			continue
		}
		row := linkRow{protocolRow: tableInbound(t, cells[0], cells[1], cells[2], reality), line: strings.TrimSpace(line), has: map[string]bool{}}
		for i, column := range tableColumns {
			row.has[column] = cells[3+i] == "yes"
		}
		rows = append(rows, row)
	}
	if len(rows) < 50 {
		t.Fatalf("docs/links.md has a table of %d rows", len(rows))
	}
	return rows
}

func tableInbound(t *testing.T, protocol, by, security string, reality map[string]any) protocolRow {
	t.Helper()
	raw := map[string]any{"network": "raw"}
	streams := map[string]map[string]any{
		"raw TCP": raw, "raw TCP, VLESS encryption": raw, "AEAD": nil, "2022": nil,
		"raw TCP with an HTTP header": {"network": "raw", "rawSettings": map[string]any{"header": map[string]any{"type": "http"}}},
		"WebSocket":                   transport("ws", map[string]any{"path": "/ws"}),
		"HTTPUpgrade":                 transport("httpupgrade", map[string]any{"path": "/up"}),
		"gRPC":                        transport("grpc", map[string]any{"serviceName": "svc"}),
		"gRPC, multi mode":            transport("grpc", map[string]any{"serviceName": "svc", "multiMode": true}),
		"XHTTP":                       transport("xhttp", map[string]any{"path": "/x"}),
		"mKCP":                        transport("kcp", map[string]any{}),
		"raw TCP with masks":          masked(maps.Clone(raw), "tcp", map[string]any{"type": "fragment", "settings": map[string]any{"packets": "tlshello", "lengths": []any{"10-20"}, "delays": []any{"1-2"}}}),
		"QUIC":                        {"network": "hysteria"},
		"QUIC with salamander":        masked(map[string]any{"network": "hysteria"}, "udp", map[string]any{"type": "salamander", "settings": map[string]any{"password": "hush-hush"}}),
		"QUIC with other masks":       masked(map[string]any{"network": "hysteria"}, "udp", map[string]any{"type": "salamander", "settings": map[string]any{"password": "hush-hush", "packetSize": "600-1200"}}),
	}
	stream, known := streams[by]
	if !known {
		t.Fatalf("docs/links.md has the transport %q, which this test does not know", by)
	}
	row := protocolRow{name: protocol + " over " + by, protocol: protocol, settings: map[string]any{}, stream: maps.Clone(stream)}
	switch {
	case protocol == "vless" && strings.HasSuffix(by, "encryption"):
		row.settings = encryptedRow(t).settings
	case protocol == "vless":
		row.settings = decryption
	case by == "AEAD":
		row.settings = shadowsocksRow.settings
	case by == "2022":
		row.settings = ss2022Row.settings
	case protocol == "hysteria", protocol == "socks":
		row.settings = map[string]map[string]any{"hysteria": hysteriaRow.settings, "socks": socksRow.settings}[protocol]
	}
	switch security {
	case "TLS":
		row.name, row.tls = row.name+" and TLS", true
	case "REALITY":
		row.name, row.stream = row.name+" and REALITY", merged(row.stream, reality)
	}
	return row
}

// furtherRows are inbounds that only Xray's form has words for, in more of their modes than the table says.
func furtherRows() []protocolRow {
	return slices.DeleteFunc(protocolRows(), func(r protocolRow) bool {
		return r.more != nil || !slices.ContainsFunc([]string{"packet-up", "stream-", "sessions", "Minecraft", "mKCP ", "BBR"}, func(word string) bool { return strings.Contains(r.name, word) })
	})
}
