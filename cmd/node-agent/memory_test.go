package main

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// The mappings that rest gives back have this program's functions and none of its variables,
// and the program runs on afterwards.
func TestRestGivesBackCode(t *testing.T) {
	within := func(address uintptr) bool {
		t.Helper()
		code, err := ownCode()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range code {
			if m.StartAddr <= address && address < m.EndAddr {
				return true
			}
		}
		return false
	}
	if !within(reflect.ValueOf(releaseStartupMemory).Pointer()) {
		t.Error("no mapping has the function releaseStartupMemory")
	}
	if within(reflect.ValueOf(&version).Pointer()) {
		t.Error("a mapping has a variable: its value would be lost")
	}
	if err := releaseStartupMemory(); err != nil {
		t.Fatal(err)
	}
	if err := dropPages(1, unix.PathMax); err == nil {
		t.Error("pages at an address that begins none were given back")
	}
}
