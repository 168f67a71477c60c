package state

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// parsePorts reads Xray's port member: a number, or a text of numbers and ranges, for example
// 443, "443" or "1000-1010,2000". It returns each port once.
func parsePorts(raw json.RawMessage) ([]uint16, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("it has no port")
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, fmt.Errorf("read port: %w", err)
		}
	}
	var ports []uint16
	var named [1 << 16]bool
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || to < from {
			return nil, fmt.Errorf("%s is not a port: want a number from 1 to 65535, or ranges such as \"1000-1010,2000\"", raw)
		}
		for port := from; port <= to; port++ {
			if named[port] {
				continue
			}
			named[port] = true
			ports = append(ports, uint16(port))
		}
	}
	return ports, nil
}
