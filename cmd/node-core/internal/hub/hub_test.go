package hub

import "testing"

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Each node wakes only those who wait for it, and for what has happened.
func TestHub(t *testing.T) {
	h := New()
	change, report, other := h.Next(1), h.NextReport(1), h.NextReport(2)
	h.Reported(1)
	if closed(change) || !closed(report) || closed(other) {
		t.Error("a report woke somebody else, or not its own")
	}
	if again := h.NextReport(1); closed(again) {
		t.Error("a report wakes who comes after it")
	}
	h.Changed(1, 2)
	if !closed(change) || closed(other) {
		t.Error("a change woke somebody else, or not its own")
	}
}
