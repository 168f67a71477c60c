package main

import "testing"

// A small Core collects its garbage as Go does by itself. One with many nodes has a bounded part of
// garbage, and is never kept busy with collecting.
func TestGarbageIsBounded(t *testing.T) {
	const mb = 1 << 20
	for live, want := range map[uint64]int{0: 100, 48 * mb: 100, 128 * mb: 37, 300 * mb: 16, 4096 * mb: 10} {
		if got := garbagePercent(live); got != want {
			t.Errorf("with %d MB the percentage is %d, want %d", live/mb, got, want)
		}
	}
}
