package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
)

// Usage rows are stored as varints, about 16 bytes for a row, for which JSON needs 130: Core may
// be away for a month. A batch is
//
//	one byte: version, 1
//	the number of rows
//	for each row:
//	    recordedAt in minutes since 1970, minus that of the previous row (zigzag)
//	    userId (zigzag)
//	    one byte: 0 for no subscriptionId, or 1, and subscriptionId (zigzag)
//	    nodeProtocolId (zigzag)
//	    bytesUp, bytesDown
const usageVersion = 1

// encodeUsage encodes usage rows.
func encodeUsage(entries []wire.UsageEntry) []byte {
	out := binary.AppendUvarint([]byte{usageVersion}, uint64(len(entries)))
	var before int64
	for _, e := range entries {
		minute := e.RecordedAt.Unix() / 60
		out = binary.AppendVarint(out, minute-before)
		before = minute
		out = binary.AppendVarint(out, e.UserID)
		if e.SubscriptionID == nil {
			out = append(out, 0)
		} else {
			out = append(out, 1)
			out = binary.AppendVarint(out, *e.SubscriptionID)
		}
		out = binary.AppendVarint(out, e.NodeProtocolID)
		out = binary.AppendUvarint(out, uint64(e.BytesUp))
		out = binary.AppendUvarint(out, uint64(e.BytesDown))
	}
	return out
}

// decodeUsage undoes encodeUsage. It returns an error for anything else.
func decodeUsage(raw []byte) ([]wire.UsageEntry, error) {
	r := varintReader{rest: raw}
	if version := r.byte(); version != usageVersion && !r.failed {
		return nil, fmt.Errorf("usage rows of version %d, want %d", version, usageVersion)
	}
	count := r.unsigned()
	if count > uint64(len(raw)) { // a row has several bytes
		return nil, fmt.Errorf("%d usage rows in %d bytes", count, len(raw))
	}
	entries := make([]wire.UsageEntry, 0, count)
	var minute int64
	for range count {
		minute += r.signed()
		e := wire.UsageEntry{RecordedAt: time.Unix(minute*60, 0).UTC(), UserID: r.signed()}
		switch r.byte() {
		case 0:
		case 1:
			e.SubscriptionID = new(r.signed())
		default:
			r.failed = true
		}
		e.NodeProtocolID = r.signed()
		e.BytesUp, e.BytesDown = int64(r.unsigned()), int64(r.unsigned())
		entries = append(entries, e)
	}
	if r.failed || len(r.rest) > 0 {
		return nil, errors.New("usage rows are cut short or have a tail")
	}
	return entries, nil
}

// firstMinute returns the recordedAt of the first row.
func firstMinute(raw []byte) (time.Time, error) {
	r := varintReader{rest: raw}
	version, rows, minute := r.byte(), r.unsigned(), r.signed()
	if r.failed || version != usageVersion || rows == 0 {
		return time.Time{}, errors.New("usage rows have no first row")
	}
	return time.Unix(minute*60, 0).UTC(), nil
}

// usageBody returns the request body, JSON, for encoded rows.
func usageBody(raw []byte) ([]byte, error) {
	entries, err := decodeUsage(raw)
	if err != nil {
		return nil, err
	}
	return json.Marshal(wire.UsageRequest{Entries: entries})
}

// varintReader reads from rest. After a failure it returns zeros, and failed stays set.
type varintReader struct {
	rest   []byte
	failed bool
}

func (r *varintReader) byte() byte {
	if len(r.rest) == 0 {
		r.failed = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *varintReader) signed() int64 {
	v, n := binary.Varint(r.rest)
	r.advance(n)
	return v
}

func (r *varintReader) unsigned() uint64 {
	v, n := binary.Uvarint(r.rest)
	r.advance(n)
	return v
}

func (r *varintReader) advance(n int) {
	if n <= 0 {
		r.failed, r.rest = true, nil
		return
	}
	r.rest = r.rest[n:]
}
