// Package fault has the one type in which the engines say what went wrong: with a code
// for Core, the place, a sentence for a person, and whether another try of the same
// revision can help.
//
// A fault is made where it is found, for only there is it known whether the host can mend
// it. Nobody guesses that from the type or the text of an error later.
package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"nodeagent/coreclient/wire"
)

// Code is a code of POST /node/error.
type Code = string

// The codes that faults of a configuration have.
const (
	Invalid     Code = wire.CodeConfigInvalid
	ApplyFailed Code = wire.CodeConfigApplyFailed
	PortInUse   Code = wire.CodePortInUse
)

// Fault is why a part of a configuration could not be had. Once made, it is not changed.
// It travels from the worker to the daemon as JSON.
type Fault struct {
	Code Code `json:"code"`
	// Tag names the inbound, outbound, balancer or rule; it is empty where the fault
	// concerns none.
	Tag string `json:"tag,omitzero"`
	// Port is the port that could not be had, 0 for none.
	Port uint16 `json:"port,omitzero"`
	// Message says what failed, with which value, and what to do. It has no secrets.
	Message string `json:"message"`
	// Retry is true where the same revision may succeed later without a change of its
	// text: a file, a folder, a clock, an address or a port of the host has to change. It
	// is false where the text itself is wrong.
	Retry bool `json:"retry,omitzero"`
	// Stack is the stack of a panic. It is for the node's log: Core does not get it.
	Stack string `json:"stack,omitzero"`
}

func (f *Fault) Error() string { return f.Message }

// InText returns a fault that is in the text of the configuration: no other try of the
// same revision helps.
func InText(tag, format string, args ...any) *Fault {
	return &Fault{Code: Invalid, Tag: tag, Message: fmt.Sprintf(format, args...)}
}

// OnHost returns a fault that the host can mend: the same revision is tried again.
func OnHost(tag, format string, args ...any) *Fault {
	return &Fault{Code: ApplyFailed, Tag: tag, Message: fmt.Sprintf(format, args...), Retry: true}
}

// PortTaken returns the fault that another process holds a port. port is 0 for a unix
// socket.
func PortTaken(tag string, port uint16, format string, args ...any) *Fault {
	return &Fault{Code: PortInUse, Tag: tag, Port: port, Message: fmt.Sprintf(format, args...), Retry: true}
}

// From returns the first fault in the tree of err; nil where there is none.
func From(err error) *Fault {
	f, _ := errors.AsType[*Fault](err)
	return f
}

// Of returns the fault in err. An error that is none becomes one that is tried again:
// nothing says that the text of the configuration caused it.
func Of(err error) *Fault {
	if f := From(err); f != nil {
		return f
	}
	return &Fault{Code: ApplyFailed, Message: err.Error(), Retry: true}
}

// Wrap returns a fault with the same place, code and chance as the fault in err, and
// another message, which Sprintf makes of format and args.
func Wrap(err error, tag, format string, args ...any) *Fault {
	wrapped := *Of(err)
	if tag != "" {
		wrapped.Tag = tag
	}
	wrapped.Message = fmt.Sprintf(format, args...)
	return &wrapped
}

// Caused returns a fault over an error of a library. It is on the host where the
// operating system caused the error (a file, a folder, an address, a descriptor), and in
// the text of the configuration otherwise. A fault in err keeps its place and its chance.
func Caused(err error, tag, format string, args ...any) *Fault {
	switch {
	case From(err) != nil:
		return Wrap(err, tag, format, args...)
	case fromSystem(err):
		return OnHost(tag, format, args...)
	}
	return InText(tag, format, args...)
}

func fromSystem(err error) bool {
	if _, is := errors.AsType[*fs.PathError](err); is {
		return true
	}
	_, is := errors.AsType[syscall.Errno](err)
	return is
}
