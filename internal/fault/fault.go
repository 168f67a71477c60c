// Package fault has the type with which the engines report what is wrong with a part of a
// configuration: a code for Core, the place, a sentence for a person, and whether another try
// of the same revision can help.
//
// The function that finds a fault makes it, because only that function knows whether a change
// on the host can mend it. No caller decides this later from the type or the text of an error.
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

// Kind is the kind of the part of a configuration that a fault concerns.
type Kind string

// The kinds of parts. Each inbound, client, outbound and MTProto inbound is a part. Routing,
// DNS, policy and the upstreams of MTProto are one part each.
const (
	Inbound  Kind = "inbound"
	Client   Kind = "client"
	Outbound Kind = "outbound"
	Routing  Kind = "routing"
	DNS      Kind = "dns"
	Policy   Kind = "policy"
	MTProto  Kind = "mtproto"
	Upstream Kind = "upstream"
)

// Fault says why a part of a configuration could not be applied. The function that makes a
// fault may set its members; after it has returned the fault, nothing changes it. The worker
// sends faults to the daemon as JSON.
type Fault struct {
	Code Code `json:"code"`
	// Kind says which part of the configuration cannot be applied. It is empty where the part
	// is not known, and where it is the whole configuration.
	Kind Kind `json:"kind,omitzero"`
	// Client names a client of the inbound Tag as Core knows it; empty for no client.
	Client string `json:"client,omitzero"`
	// Tag names the inbound, outbound, balancer or rule; it is empty where the fault
	// concerns none.
	Tag string `json:"tag,omitzero"`
	// ClientEmail is the client's name inside the worker. It is not reported to Core.
	ClientEmail string `json:"clientEmail,omitzero"`
	// Port is the port that could not be bound, 0 for none.
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

// Of sets the kind of a fault that was just made, and returns the fault.
func (f *Fault) Of(kind Kind) *Fault {
	f.Kind = kind
	return f
}

// In sets the kind of all faults in err that have none, and returns err. The faults must be
// new: no other goroutine may have them yet.
func In(kind Kind, err error) error {
	for _, f := range All(err) {
		if f.Kind == "" {
			f.Kind = kind
		}
	}
	return err
}

// All returns the faults in the tree of err, in the order of their places in it.
func All(err error) []*Fault {
	switch err := err.(type) { //nolint:errorlint // it walks the tree by itself
	case nil:
		return nil
	case *Fault:
		return []*Fault{err}
	case interface{ Unwrap() []error }:
		var all []*Fault
		for _, e := range err.Unwrap() {
			all = append(all, All(e)...)
		}
		return all
	case interface{ Unwrap() error }:
		return All(err.Unwrap())
	}
	return nil
}

// From returns the first fault in the tree of err; nil where there is none.
func From(err error) *Fault {
	f, _ := errors.AsType[*Fault](err)
	return f
}

// Of returns the first fault in err. For another error it makes a fault that is tried again,
// because nothing says that the text of the configuration caused the error.
func Of(err error) *Fault {
	if f := From(err); f != nil {
		return f
	}
	return &Fault{Code: ApplyFailed, Message: err.Error(), Retry: true}
}

// Wrap returns a copy of the fault in err with another message, and with another tag where tag
// is not empty.
func Wrap(err error, tag, format string, args ...any) *Fault {
	wrapped := *Of(err)
	if tag != "" {
		wrapped.Tag = tag
	}
	wrapped.Message = fmt.Sprintf(format, args...)
	return &wrapped
}

// Caused returns a fault over an error of a library. The fault can be retried where the
// operating system caused the error (a file, a folder, an address, a descriptor). Otherwise
// the text of the configuration is wrong. A fault in err keeps its code, place and Retry.
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
