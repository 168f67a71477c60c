package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"nodeagent/xray/members"
)

func main() {
	raw, err := encode()
	if err == nil {
		err = os.WriteFile(members.FileName, raw, 0o644) //nolint:gosec // a source file, which everybody may read
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "membertable:", err)
		os.Exit(1)
	}
}

// encode returns the table as JSON, with one type in a line, so that a difference between two
// versions of xray-core can be read.
func encode() ([]byte, error) {
	table := newTable()
	var out bytes.Buffer
	out.WriteString("{\"types\":[\n")
	for i, t := range table.Types {
		raw, err := json.Marshal(t)
		if err != nil {
			return nil, fmt.Errorf("encode type %d: %w", i, err)
		}
		out.Write(raw)
		if i < len(table.Types)-1 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
	}
	for _, rest := range []struct {
		name  string
		value any
	}{{"parts", table.Parts}, {"clients", table.Clients}, {"settings", table.Settings}} {
		raw, err := json.Marshal(rest.value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", rest.name, err)
		}
		end := ",\n"
		if rest.name == "parts" {
			end = "],\n"
		}
		fmt.Fprintf(&out, "%s%q:%s", end, rest.name, raw)
	}
	out.WriteString("}\n")
	return out.Bytes(), nil
}
