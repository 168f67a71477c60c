package corestore

import (
	"errors"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// An edit changes an outbound's tag and disables it, keeps its traffic, and is another revision. It
// takes no tag that another one has, and leaves the node one outbound.
func TestEditOutbound(t *testing.T) {
	s := openStore(t)
	ctx := t.Context()
	node, _, err := s.AddNode(ctx, "n", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutOutbound(ctx, Outbound{NodeID: node.ID, Tag: "proxy", Config: []byte(`{"tag":"proxy"}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddOutboundUsage(ctx, node.ID, "", []wire.OutboundUsageItem{{Tag: "proxy", BytesUp: 7, BytesDown: 9}, {Tag: "gone", BytesUp: 1}}); err != nil {
		t.Fatal(err)
	}
	before, err := s.Revision(ctx, node.ID)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(tag, to string, disabled bool) error {
		_, err := s.EditOutbound(ctx, node.ID, tag, func(o *Outbound) error {
			o.Tag, o.Disabled = to, disabled
			return nil
		})
		return err
	}
	if err := edit("proxy", "exit", true); err != nil {
		t.Fatal(err)
	}
	if after, err := s.Revision(ctx, node.ID); err != nil || after <= before {
		t.Errorf("revision %d after %d, %v", after, before, err)
	}
	if err := edit("direct", "direct", true); !errors.Is(err, ErrLastOutbound) {
		t.Errorf("disabling the last outbound: got %v", err)
	}
	if err := s.RemoveOutbound(ctx, node.ID, "direct"); !errors.Is(err, ErrLastOutbound) {
		t.Errorf("removing the last outbound that is not disabled: got %v", err)
	}
	for _, taken := range []string{"direct", "gone"} {
		if err := edit("exit", taken, false); !errors.Is(err, ErrExists) {
			t.Errorf("the tag %s of another outbound: got %v", taken, err)
		}
	}
	for _, missing := range []string{"proxy", "gone"} {
		if err := edit(missing, "x", false); !errors.Is(err, ErrNotFound) {
			t.Errorf("an edit of %s: got %v", missing, err)
		}
	}
	all, err := s.Outbounds(ctx, node.ID)
	if err != nil || len(all) != 3 {
		t.Fatalf("got %v, %v", all, err)
	}
	if o := all[1]; o.Tag != "exit" || !o.Disabled || o.TrafficBytesUp != 7 || o.TrafficBytesDown != 9 {
		t.Errorf("got %+v", o)
	}
}
