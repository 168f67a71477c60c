package process

import (
	"regexp"
	"strings"
	"sync"

	"nodeagent/telemt/service"
)

// keptLines is how many of telemt's last lines are kept to explain a failure.
const keptLines = 40

// hexDigits are a client's secret, or a link that contains one.
var hexDigits = regexp.MustCompile(`[0-9A-Fa-f]{32,}`)

const hidden = "(hidden)"

// Redact replaces everything in the text that can be a client's secret, which is any run
// of 32 or more hex digits.
func Redact(text string) string { return hexDigits.ReplaceAllString(text, hidden) }

// Output has the last lines that one telemt has printed. Secrets in them are replaced.
// Several goroutines may use an Output at the same time.
type Output struct {
	secrets *strings.Replacer // for the secrets that are not hex digits

	mu    sync.Mutex        // no other lock is taken under it
	ids   map[string]string // of clients, by telemt's name of the user
	lines []string          // the last keptLines
	count int               // of all lines so far

	// read takes what telemt has written by now; nil where nothing is read.
	read func()
}

func newOutput(desired service.Desired) *Output {
	var secrets []string
	for _, u := range desired.Upstreams {
		secrets = append(secrets, u.Password, u.URL)
	}
	secrets = append(secrets, secretsIn(desired.Advanced)...)
	var pairs []string
	for _, secret := range secrets {
		if secret != "" {
			pairs = append(pairs, secret, hidden)
		}
	}
	o := &Output{secrets: strings.NewReplacer(pairs...), ids: map[string]string{}}
	o.Know(desired.Inbound)
	return o
}

// Know makes add write the clients' ids in the place of telemt's names for them, also after a
// client was removed: telemt tells of its end.
func (o *Output) Know(in service.Inbound) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ids) > 2*service.MaxClients {
		clear(o.ids)
	}
	for _, c := range in.Clients {
		o.ids[in.UserName(c)] = c.ID
	}
}

// redactLocked is Redact, with the ids of known clients.
func (o *Output) redactLocked(text string) string {
	return hexDigits.ReplaceAllStringFunc(text, func(digits string) string {
		if id, known := o.ids[digits]; known {
			return id
		}
		return hidden
	})
}

// secretKey matches the names of telemt's keys whose value is a secret, as password and
// auth_header are, or contains one, as url does.
var secretKey = regexp.MustCompile(`(?i)pass|secret|token|key|auth|url`)

// secretsIn returns the values in a tree of telemt's keys that can be secrets.
func secretsIn(tree any) []string {
	var found []string
	switch v := tree.(type) {
	case map[string]any:
		for name, value := range v {
			if text, ok := value.(string); ok && secretKey.MatchString(name) {
				found = append(found, text)
			}
			found = append(found, secretsIn(value)...)
		}
	case []any:
		for _, value := range v {
			found = append(found, secretsIn(value)...)
		}
	}
	return found
}

// add keeps a line and returns it without secrets.
func (o *Output) add(line string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	line = o.secrets.Replace(o.redactLocked(line))
	o.lines = append(o.lines, line)
	o.count++
	if len(o.lines) > keptLines {
		o.lines = o.lines[1:]
	}
	return line
}

// Position returns the number of lines so far, for RejectionAfter.
func (o *Output) Position() int {
	o.takeWritten()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count
}

func (o *Output) takeWritten() {
	if o.read != nil {
		o.read()
	}
}

func (o *Output) after(position int) []string {
	o.takeWritten()
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(o.count-position, len(o.lines))
	return append([]string(nil), o.lines[len(o.lines)-n:]...)
}

// RejectionAfter returns why a running telemt has rejected its changed file since that
// Position, or "" if it has rejected none.
func (o *Output) RejectionAfter(position int) string {
	for _, line := range o.after(position) {
		if _, reason, ok := strings.Cut(line, "config reload: "); ok && strings.Contains(line, "ERROR") {
			return reason
		}
	}
	return ""
}

// ExitReason returns why telemt ended: its fatal line on standard error, or else its
// errors, or else its last line.
func (o *Output) ExitReason() string {
	lines := o.after(0)
	var failures []string
	for _, line := range lines {
		if reason, ok := strings.CutPrefix(line, "[telemt] "); ok {
			return reason
		}
		if _, reason, ok := strings.Cut(line, "ERROR "); ok {
			failures = append(failures, reason)
		}
	}
	switch {
	case len(failures) > 0:
		return strings.Join(failures, "; ")
	case len(lines) > 0:
		return lines[len(lines)-1]
	}
	return "it printed nothing"
}
