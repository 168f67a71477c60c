package versions

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// Version is a version of Xray, as in {26, 7, 28}: year, month, day. The zero Version is none.
type Version [3]int

// String returns the version as Xray writes it.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// Before reports whether v is older than other.
func (v Version) Before(other Version) bool { return slices.Compare(v[:], other[:]) < 0 }

// Current is the version that node-agent and node-core are built for.
var Current = Version{26, 7, 28}

// product finds Xray in a User-Agent. Agents that embed Xray 26.3.27 and older write
// "node-agent/1.2.3 (xray 26.3.27, telemt 3.4.25)", newer ones "node-agent/1.2.3 xray/26.7.28".
var product = regexp.MustCompile(`(?:^|[ (])xray[ /](\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:[ ,)]|$)`)

// OfAgent returns the version of Xray in an agent's User-Agent, and false where it names none.
func OfAgent(userAgent string) (Version, bool) {
	found := product.FindStringSubmatch(userAgent)
	if found == nil {
		return Version{}, false
	}
	var v Version
	for i := range v {
		v[i], _ = strconv.Atoi(found[i+1]) // at most four digits
	}
	return v, true
}
