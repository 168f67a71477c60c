package adminapi

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

const (
	defaultLimit = 1000
	maxName      = 100 // bytes
	// maxTag bounds an outbound's tag, in bytes. nodeapi refuses reports about longer tags.
	maxTag = 200
)

// checkName refuses a name that could not be told from an id, or not be shown in a table.
// kind says what has the name.
func checkName(kind, name string) error {
	if strings.TrimSpace(name) == "" || len(name) > maxName || strings.ContainsFunc(name, unicode.IsControl) {
		return badInput{fmt.Errorf("a %s needs a name of 1 to %d bytes without control characters", kind, maxName)}
	}
	if _, err := strconv.Atoi(name); err == nil {
		return badInput{fmt.Errorf("%q can't name a %s: it would be taken for an id", name, kind)}
	}
	return nil
}

func limit(args limitArgs) int {
	if args.Limit <= 0 {
		return defaultLimit
	}
	return args.Limit
}
