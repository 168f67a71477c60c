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

// checkStream returns an error for a transport on which Xray fails when it starts to listen,
// or that serves no client. Xray accepts it when it builds the inbound.
func checkStream(in state.Inbound) error {
	stream := &in.View().Stream
	switch overHysteria := stream.Network == "hysteria"; {
	case in.Protocol == "hysteria" && !overHysteria:
		return fmt.Errorf("streamSettings.network is %q, over which hysteria would ask its clients for no auth: set it to \"hysteria\"", stream.Network)
	case overHysteria && stream.Security != "tls":
		return errors.New("hysteria listens only with TLS: set streamSettings.security to \"tls\"")
	case overHysteria && in.Protocol != "hysteria" && stream.HysteriaSettings.Auth == "":
		return errors.New("streamSettings.hysteriaSettings.auth is empty, and Xray does not listen without it: set it")
	}
	if reason := withoutVision(in); in.Protocol == "vless" && in.View().Settings.Flow == state.FlowVision && reason != "" {
		isWay := func(client *state.Client) bool { return bytes.Contains(client.Account, []byte(`"reverse":`)) }
		if !slices.ContainsFunc(in.Clients, isWay) {
			return fmt.Errorf("settings.flow cannot be %s, because %s: leave it out", state.FlowVision, reason)
		}
	}
	if !slices.Contains(in.Networks(), "udp") {
		return nil
	}
	return checkSalamander(stream)
}

// checkDialing returns a fault for an outbound that Xray accepts and that fails when it dials.
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

// minSalamander is the least length of the password of a salamander mask, in bytes
// (transport/internet/finalmask/salamander).
const minSalamander = 4

func checkSalamander(stream *state.StreamView) error {
	for i, mask := range stream.FinalMask.UDP {
		if strings.EqualFold(mask.Type, "salamander") && len(mask.Settings.Password) < minSalamander {
			return fmt.Errorf("streamSettings.finalmask.udp[%d]: the password of salamander is too short: give it %d bytes or more", i, minSalamander)
		}
	}
	return nil
}

// withoutVision returns why no client could open a TCP connection with the flow
// xtls-rprx-vision on the inbound, and "" where clients could (proxy/vless/inbound).
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
	case decryption != "" && decryption != "none": // VLESS encryption works over every transport
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

// checkVision returns a fault for each client with the flow xtls-rprx-vision where the inbound
// cannot serve that flow and the client is new, or the inbound could serve the flow before.
// Xray would refuse every connection of such a client.
func checkVision(from, to state.State) error {
	var all []error
	for _, tag := range to.Tags() {
		in, before := to.Inbounds[tag], from.Inbounds[tag]
		if in.Protocol != "vless" || !in.AnyClient(func(r state.Reading) bool { return r.Vision }) {
			continue
		}
		reason := withoutVision(in)
		if reason == "" {
			continue
		}
		worked := before.Protocol != in.Protocol || withoutVision(before) == ""
		for _, client := range in.Clients {
			if client.Reading.Vision && (worked || before.Clients.Find(client.Email) == nil) {
				all = append(all, ofClient(fault.InText(tag, "inbound %q, %s: the flow %s cannot work: %s; leave the flow out", tag, clientLabel(client), state.FlowVision, reason), client))
			}
		}
	}
	return errors.Join(all...)
}
