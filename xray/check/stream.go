package check

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// checkStream finds a transport over which Xray fails when it starts to listen, and not
// when it builds the inbound.
func checkStream(in state.Inbound) error {
	stream := &in.View().Stream
	switch overHysteria := stream.Network == "hysteria"; {
	case in.Protocol == "hysteria" && !overHysteria:
		return fmt.Errorf("streamSettings.network is %q: hysteria asks its clients for auth over \"hysteria\" alone", stream.Network)
	case overHysteria && stream.Security != "tls":
		return errors.New("hysteria listens with TLS alone: set streamSettings.security to \"tls\"")
	case overHysteria && in.Protocol != "hysteria" && stream.HysteriaSettings.Auth == "":
		return errors.New("streamSettings.hysteriaSettings.auth is empty: anybody could connect, and Xray does not listen then")
	}
	if reason := withoutVision(in); in.Protocol == "vless" && in.View().Settings.Flow == state.FlowVision && reason != "" {
		isWay := func(client state.Client) bool { return bytes.Contains(client.Account, []byte(`"reverse":`)) }
		if !slices.ContainsFunc(in.Clients, isWay) {
			return fmt.Errorf("settings.flow can't be %s: %s; leave it out", state.FlowVision, reason)
		}
	}
	if !slices.Contains(in.Networks(), "udp") {
		return nil
	}
	return checkSalamander(stream)
}

// checkDialing finds what Xray takes in an outbound, and fails over when it dials.
func checkDialing(from, to state.State) error {
	for _, out := range to.Outbounds {
		stream := out.View().Stream
		if i := from.OutboundIndex(out.Tag); i >= 0 && slices.Equal(from.Outbounds[i].Config, out.Config) || !slices.Contains(state.OverUDP, stream.Network) {
			continue
		}
		if err := checkSalamander(&stream); err != nil {
			return fault.InText(out.Tag, "outbound %q: %v", out.Tag, err)
		}
	}
	return nil
}

// minSalamander is how many bytes the password of a salamander mask has at the least
// (transport/internet/finalmask/salamander).
const minSalamander = 4

func checkSalamander(stream *state.StreamView) error {
	for i, mask := range stream.FinalMask.UDP {
		if strings.EqualFold(mask.Type, "salamander") && len(mask.Settings.Password) < minSalamander {
			return fmt.Errorf("streamSettings.finalmask.udp[%d]: the password of salamander has to have %d bytes or more", i, minSalamander)
		}
	}
	return nil
}

// withoutVision tells why no client could open a TCP connection with the flow Vision on
// the inbound, empty where it could (proxy/vless/inbound).
func withoutVision(in state.Inbound) string {
	v := in.View()
	stream := &v.Stream
	var decryption string
	_ = json.Unmarshal(v.Settings.Decryption, &decryption)
	transport := cmp.Or(stream.Network, "raw")
	header := ""
	if raw := cmp.Or(stream.RawSettings, stream.TCPSettings); raw != nil {
		header = raw.Header.Type
	}
	switch {
	case decryption != "" && decryption != "none": // VLESS encryption, over whatever
		return ""
	case transport != "raw" && transport != "tcp":
		return "it does not work over " + transport + " without VLESS encryption"
	case stream.Security != "tls" && stream.Security != "reality":
		return "it needs TLS, REALITY or VLESS encryption"
	case strings.EqualFold(header, "http"):
		return "it does not work over a raw transport with an HTTP header"
	}
	return ""
}

// checkVision finds clients whose flow the inbound can't serve, where they or the inbound
// are new: Xray would refuse whatever they open.
func checkVision(from, to state.State) error {
	var all []error
	for _, tag := range to.Tags() {
		in, before := to.Inbounds[tag], from.Inbounds[tag]
		if in.Protocol != "vless" || !slices.ContainsFunc(in.Clients, func(c state.Client) bool { return c.Reading.Vision }) {
			continue
		}
		reason := withoutVision(in)
		if reason == "" {
			continue
		}
		worked := before.Protocol != in.Protocol || withoutVision(before) == ""
		for i := range in.Clients {
			client := &in.Clients[i]
			if client.Reading.Vision && (worked || before.Clients.Find(client.Email) == nil) {
				all = append(all, ofClient(fault.InText(tag, "inbound %q, %s: the flow %s can't be: %s; leave the flow out", tag, clientLabel(client), state.FlowVision, reason), client))
			}
		}
	}
	return errors.Join(all...)
}
