package ipc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"

	jsonv2 "github.com/go-json-experiment/json"

	"nodeagent/internal/grant"
	"nodeagent/internal/varint"
	"nodeagent/xray/state"
)

// A compact frame is a request with an operation of many users. As JSON, the users take most of the
// processor time of a start. The frame has these parts, the second and those after it each behind its
// length as uvarint:
//
//	a zero byte, with which no JSON begins
//	the request without the users, JSON
//	numbers    how many users there are, and for each its numbers and the lengths of its texts
//	texts      emails, groups and users, one after the other
//	accounts   the accounts, one after the other
//
// Only a worker of the same build gets such frames.
const compactFrame = 0

// compactFrom is how many users an operation has at least that goes as a compact frame.
const compactFrom = 500

var errCompact = errors.New("decode frame: its users can't be read")

// isCompact reports whether v is sent as a compact frame.
func isCompact(v any) (r Request, is bool) {
	r, is = v.(Request)
	return r, is && r.Operation != nil && len(r.Operation.Users) >= compactFrom
}

// appendCompact appends the parts of a compact frame.
func appendCompact(frame net.Buffers, r Request) (net.Buffers, error) {
	op := *r.Operation
	var w userWriter
	if err := w.users(op.Users); err != nil {
		return nil, err
	}
	op.Users = nil
	r.Operation = &op
	head, err := jsonv2.Marshal(r, frameOptions)
	if err != nil {
		return nil, err
	}
	frame = append(frame, []byte{compactFrame})
	for _, part := range [][]byte{head, w.Numbers, w.Texts, w.accounts} {
		frame = append(frame, binary.AppendUvarint(nil, uint64(len(part))), part)
	}
	return frame, nil
}

type userWriter struct {
	varint.Writer
	accounts []byte
}

func (w *userWriter) users(users []state.Client) error {
	texts, accounts := 0, 0
	for i := range users {
		texts += len(users[i].Email) + len(users[i].Group) + len(users[i].User)
		accounts += len(users[i].Account)
	}
	w.Numbers = make([]byte, 0, 16*len(users))
	w.Texts, w.accounts = make([]byte, 0, texts), make([]byte, 0, accounts)
	w.Number(uint64(len(users)))
	for i := range users {
		if err := w.user(&users[i]); err != nil {
			return err
		}
	}
	return nil
}

// bytes writes bytes that few users have, among the numbers.
func (w *userWriter) bytes(b []byte) {
	w.Number(uint64(len(b)))
	w.Numbers = append(w.Numbers, b...)
}

// The parts that few users have.
const (
	hasLimits = 1 << iota
	hasGrant
	hasAddresses
)

func (w *userWriter) user(c *state.Client) error {
	has := uint64(0)
	if c.Limits != (state.Limits{}) {
		has |= hasLimits
	}
	if c.Grant != nil {
		has |= hasGrant
	}
	if c.Addresses != nil {
		has |= hasAddresses
	}
	w.Number(has)
	w.Number(uint64(c.Slot))
	w.Text(c.Email)
	w.Text(c.Group)
	w.Text(c.User)
	w.Number(uint64(len(c.Account)))
	w.accounts = append(w.accounts, c.Account...)
	if has&hasLimits != 0 {
		w.Signed(int64(c.Limits.IPs))
		w.Signed(int64(c.Limits.Connections))
		w.Signed(c.Limits.RateUpBitsPerSecond)
		w.Signed(c.Limits.RateDownBitsPerSecond)
	}
	if has&hasGrant != 0 {
		text, err := json.Marshal(c.Grant)
		if err != nil {
			return err
		}
		w.bytes(text)
	}
	if has&hasAddresses != 0 {
		w.Number(uint64(len(c.Addresses)))
		for _, prefix := range c.Addresses {
			text, err := prefix.MarshalBinary()
			if err != nil {
				return err
			}
			w.bytes(text)
		}
	}
	return nil
}

// decodeCompact decodes a compact frame, whose first byte was read. The accounts are parts of body.
func decodeCompact(body []byte, r *Request) error {
	var parts [4][]byte
	for i := range parts {
		n, size := binary.Uvarint(body)
		if size <= 0 || n > uint64(len(body)-size) {
			return errCompact
		}
		parts[i], body = body[size:size+int(n)], body[size+int(n):]
	}
	if err := jsonv2.Unmarshal(parts[0], r, frameOptions); err != nil {
		return err
	}
	if r.Operation == nil || len(body) > 0 {
		return errCompact
	}
	u := userReader{varint.Reader{Numbers: parts[1], Texts: string(parts[2])}, parts[3]}
	n := u.Number()
	if n > uint64(len(u.Numbers)) { // each has a number at least, so that a wrong one costs no memory
		return errCompact
	}
	users := make([]state.Client, n)
	for i := range users {
		u.user(&users[i])
	}
	if u.Failed || len(u.Numbers)+len(u.Texts)+len(u.accounts) > 0 {
		return errCompact
	}
	r.Operation.Users = users
	return nil
}

// userReader reads what userWriter has written.
type userReader struct {
	varint.Reader
	accounts []byte
}

func (u *userReader) bytes() []byte { return varint.Cut(&u.Reader, &u.Numbers) }

func (u *userReader) user(c *state.Client) {
	has, slot := u.Number(), u.Number()
	u.Failed = u.Failed || slot > math.MaxUint32
	c.Slot = uint32(slot)
	c.Email, c.Group, c.User = u.Text(), u.Text(), u.Text()
	c.Account = slices.Clip(varint.Cut(&u.Reader, &u.accounts))
	if has&hasLimits != 0 {
		c.Limits = state.Limits{IPs: int(u.Signed()), Connections: int(u.Signed()), RateUpBitsPerSecond: u.Signed(), RateDownBitsPerSecond: u.Signed()}
	}
	if has&hasGrant != 0 {
		c.Grant = &grant.Grant{}
		u.Failed = json.Unmarshal(u.bytes(), c.Grant) != nil || u.Failed
	}
	if has&hasAddresses != 0 {
		c.Addresses = []netip.Prefix{}
		for n := u.Number(); n > 0 && !u.Failed; n-- {
			var prefix netip.Prefix
			u.Failed = prefix.UnmarshalBinary(u.bytes()) != nil || u.Failed
			c.Addresses = append(c.Addresses, prefix)
		}
	}
}
