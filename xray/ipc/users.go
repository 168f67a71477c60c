package ipc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/netip"

	jsonv2 "github.com/go-json-experiment/json"

	"nodeagent/internal/grant"
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
	for _, part := range [][]byte{head, w.numbers, w.texts, w.accounts} {
		frame = append(frame, binary.AppendUvarint(nil, uint64(len(part))), part)
	}
	return frame, nil
}

type userWriter struct{ numbers, texts, accounts []byte }

func (w *userWriter) users(users []state.Client) error {
	texts, accounts := 0, 0
	for i := range users {
		texts += len(users[i].Email) + len(users[i].Group) + len(users[i].User)
		accounts += len(users[i].Account)
	}
	w.numbers = make([]byte, 0, 16*len(users))
	w.texts, w.accounts = make([]byte, 0, texts), make([]byte, 0, accounts)
	w.number(uint64(len(users)))
	for i := range users {
		if err := w.user(&users[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *userWriter) number(n uint64) { w.numbers = binary.AppendUvarint(w.numbers, n) }

func (w *userWriter) signed(n int64) { w.numbers = binary.AppendVarint(w.numbers, n) }

func (w *userWriter) text(s string) {
	w.number(uint64(len(s)))
	w.texts = append(w.texts, s...)
}

// bytes writes what few users have among the numbers.
func (w *userWriter) bytes(b []byte) {
	w.number(uint64(len(b)))
	w.numbers = append(w.numbers, b...)
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
	w.number(has)
	w.number(uint64(c.Slot))
	w.text(c.Email)
	w.text(c.Group)
	w.text(c.User)
	w.number(uint64(len(c.Account)))
	w.accounts = append(w.accounts, c.Account...)
	if has&hasLimits != 0 {
		w.signed(int64(c.Limits.IPs))
		w.signed(int64(c.Limits.Connections))
		w.signed(c.Limits.RateUpBitsPerSecond)
		w.signed(c.Limits.RateDownBitsPerSecond)
	}
	if has&hasGrant != 0 {
		text, err := json.Marshal(c.Grant)
		if err != nil {
			return err
		}
		w.bytes(text)
	}
	if has&hasAddresses != 0 {
		w.number(uint64(len(c.Addresses)))
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
	u := userReader{numbers: parts[1], texts: string(parts[2]), accounts: parts[3]}
	n := u.number()
	if n > uint64(len(u.numbers)) { // each has a number at least, so that a wrong one costs no memory
		return errCompact
	}
	users := make([]state.Client, n)
	for i := range users {
		u.user(&users[i])
	}
	if u.failed || len(u.numbers)+len(u.texts)+len(u.accounts) > 0 {
		return errCompact
	}
	r.Operation.Users = users
	return nil
}

// userReader reads what userWriter has written. After an error it returns zeros.
type userReader struct {
	numbers  []byte
	texts    string
	accounts []byte
	failed   bool
}

func (u *userReader) number() uint64 {
	n, size := binary.Uvarint(u.numbers)
	if size <= 0 {
		u.failed, u.numbers = true, nil
		return 0
	}
	u.numbers = u.numbers[size:]
	return n
}

func (u *userReader) signed() int64 {
	n, size := binary.Varint(u.numbers)
	if size <= 0 {
		u.failed, u.numbers = true, nil
		return 0
	}
	u.numbers = u.numbers[size:]
	return n
}

func (u *userReader) text() (text string) {
	n := u.number()
	if n > uint64(len(u.texts)) {
		u.failed = true
		return ""
	}
	text, u.texts = u.texts[:n], u.texts[n:]
	return text
}

func (u *userReader) bytes() (b []byte) {
	n := u.number()
	if n > uint64(len(u.numbers)) {
		u.failed = true
		return nil
	}
	b, u.numbers = u.numbers[:n], u.numbers[n:]
	return b
}

func (u *userReader) user(c *state.Client) {
	has, slot := u.number(), u.number()
	u.failed = u.failed || slot > math.MaxUint32
	c.Slot = uint32(slot)
	c.Email, c.Group, c.User = u.text(), u.text(), u.text()
	n := u.number()
	if n > uint64(len(u.accounts)) {
		u.failed = true
		return
	}
	c.Account, u.accounts = u.accounts[:n:n], u.accounts[n:]
	if has&hasLimits != 0 {
		c.Limits = state.Limits{IPs: int(u.signed()), Connections: int(u.signed()), RateUpBitsPerSecond: u.signed(), RateDownBitsPerSecond: u.signed()}
	}
	if has&hasGrant != 0 {
		c.Grant = &grant.Grant{}
		u.failed = json.Unmarshal(u.bytes(), c.Grant) != nil || u.failed
	}
	if has&hasAddresses != 0 {
		c.Addresses = []netip.Prefix{}
		for n := u.number(); n > 0 && !u.failed; n-- {
			var prefix netip.Prefix
			u.failed = prefix.UnmarshalBinary(u.bytes()) != nil || u.failed
			c.Addresses = append(c.Addresses, prefix)
		}
	}
}
