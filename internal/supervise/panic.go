package supervise

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	// maxCrash bounds how much of a crash's output is read, in bytes.
	maxCrash = 256 << 10
	// topFrames is how many functions of the panic's stack are reported.
	topFrames = 6
)

// secretInPanic matches UUIDs, keys and passwords: a panic message may quote them from a
// configuration.
var secretInPanic = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[A-Za-z0-9+/_=-]{20,}`)

// HideSecrets replaces what may be a secret in the first line of a crash.
func HideSecrets(line string) string { return secretInPanic.ReplaceAllString(line, "(hidden)") }

// PanicWords reads Go's crash output. It returns the reason of the crash and the functions at
// the top of the stack, without those of package runtime; an empty
// text where there is no crash.
func PanicWords(output io.Reader) string {
	var reason string
	var frames []string
	lines := bufio.NewScanner(io.LimitReader(output, maxCrash))
	lines.Buffer(nil, maxCrash)
	function := ""
	for lines.Scan() && len(frames) < topFrames {
		line := lines.Text()
		switch {
		case reason == "":
			if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.HasPrefix(line, "SIG") {
				reason = HideSecrets(line)
			}
		case strings.HasPrefix(line, "\t") && function != "":
			place, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			frames = append(frames, fmt.Sprintf("%s (%s)", function, filepath.Join(filepath.Base(filepath.Dir(place)), filepath.Base(place))))
			function = ""
		case strings.HasSuffix(line, ")") && !strings.HasPrefix(line, "panic(") && !strings.HasPrefix(line, "runtime."):
			function = line[:strings.LastIndex(line, "(")]
		}
	}
	if reason == "" {
		return ""
	}
	if len(frames) == 0 {
		return reason
	}
	return reason + "; in " + strings.Join(frames, " < ")
}
