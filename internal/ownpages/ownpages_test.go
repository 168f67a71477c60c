package ownpages

import (
	"reflect"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const constant = "a constant text"

var variable = "a text"

// The mappings that rest gives back have this program's functions and constants and none of its
// variables, and the program runs on afterwards.
func TestRestGivesBackTheProgram(t *testing.T) {
	within := func(address uintptr) bool {
		t.Helper()
		constants, err := ownConstants()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range constants {
			if m.from <= address && address < m.to {
				return true
			}
		}
		return false
	}
	if !within(reflect.ValueOf(Find).Pointer()) {
		t.Error("no mapping has the function Find")
	}
	if !within(uintptr(unsafe.Pointer(unsafe.StringData(constant)))) {
		t.Error("no mapping has a constant text")
	}
	if within(reflect.ValueOf(&variable).Pointer()) {
		t.Error("a mapping has a variable: its value would be lost")
	}
	pages, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range pages.mappings {
		if err := dropPages(m.from, m.to-m.from); err != nil {
			t.Error(err)
		}
	}
	pages.GiveBack()
	if err := dropPages(1, unix.PathMax); err == nil {
		t.Error("pages at an address that begins none were given back")
	}
}
