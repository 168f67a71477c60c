package corestore

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A disabled subscription keeps its credentials. Each change raises the nodes' revision; a call
// that changes nothing does not.
func TestSubscriptionsComeAndGo(t *testing.T) {
	s := openStore(t)
	node, _, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	raised := func(what string, want bool, do func() error) {
		t.Helper()
		before, _ := s.Revision(t.Context(), node.ID)
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if after, _ := s.Revision(t.Context(), node.ID); (after > before) != want {
			t.Errorf("%s: revision %d → %d, want it raised: %t", what, before, after, want)
		}
	}
	user, err := s.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := s.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	enable := func(enabled bool) func() error {
		return func() error {
			got, _, err := s.EnableSubscription(t.Context(), sub.UUID, enabled)
			if got.UUID != sub.UUID || got.MTProtoSecret != sub.MTProtoSecret || got.Enabled != enabled {
				t.Errorf("got %+v", got)
			}
			return err
		}
	}
	raised("disable", true, enable(false))
	raised("disable again", false, enable(false))
	raised("enable", true, enable(true))
	raised("remove", true, func() error { _, err := s.RemoveSubscription(t.Context(), sub.UUID); return err })
	if _, err := s.RemoveSubscription(t.Context(), sub.UUID); !errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), sub.UUID) {
		t.Errorf("removing it again gave %v", err)
	}
	if _, _, err := s.AddSubscription(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	raised("remove the user", true, func() error { _, err := s.RemoveUser(t.Context(), user.ID); return err })
	if subs, err := s.Subscriptions(t.Context()); err != nil || len(subs) != 0 {
		t.Errorf("subscriptions %+v, %v", subs, err)
	}
}
