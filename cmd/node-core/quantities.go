package main

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"nodeagent/coreapi"
)

// option is the value of a flag that says nothing unless it is given: its pointer is nil then.
type option[T any] struct {
	to    **T
	parse func(string) (T, error)
	kind  string // the placeholder in the help
}

func (o option[T]) String() string { return "" }
func (o option[T]) Type() string   { return o.kind }
func (o option[T]) Set(text string) error {
	value, err := o.parse(text)
	if err == nil {
		*o.to = &value
	}
	return err
}

func addOption[T any](flags *pflag.FlagSet, to **T, name, kind, usage string, parse func(string) (T, error)) {
	flags.Var(option[T]{to, parse, kind}, name, usage)
}

func asText(text string) (string, error) { return text, nil }

// addTerms adds the flags of a subscription's or a plan's terms.
func addTerms(flags *pflag.FlagSet, args *coreapi.TermsEdit) {
	addOption(flags, &args.Group, "group", "group", "name or id of the group, which says on which inbounds it lets in", asText)
	addOption(flags, &args.LimitBytes, "limit", "bytes", "bytes up and down together in one period, such as 10GiB; none for no limit", parseBytes)
	addOption(flags, &args.Period, "period", "period", "none, day, week, month or rolling-month: how often the bytes are counted anew", asText)
	addOption(flags, &args.LimitIPs, "limit-ips", "number", "addresses at a time on one node; 0 for no limit", parseCount)
	addOption(flags, &args.LimitDevices, "limit-devices", "number", "devices that may fetch the subscription's own link; 0 for no limit", parseCount)
	addOption(flags, &args.LimitConnections, "limit-connections", "number", "connections at a time on one node; 0 for no limit", parseCount)
	addOption(flags, &args.RateUpBitsPerSecond, "rate-up", "rate", "bits per second from the client, such as 10Mbit; none for no limit", parseRate)
	addOption(flags, &args.RateDownBitsPerSecond, "rate-down", "rate", "bits per second to the client, such as 50Mbit; none for no limit", parseRate)
}

// expiryFlags are --expires and --from-first-use.
type expiryFlags struct {
	expires      *coreapi.Expiry
	fromFirstUse bool
	startsBy     *time.Time
}

func (f *expiryFlags) add(flags *pflag.FlagSet) {
	addOption(flags, &f.expires, "expires", "time", "a day (its beginning, UTC) such as 2027-01-31, a time such as 2027-01-31T18:00:00Z, a while such as 30d, or never", parseExpiry)
	flags.BoolVar(&f.fromFirstUse, "from-first-use", false, "with a while in --expires: it begins with the first bytes")
	addOption(flags, &f.startsBy, "starts-by", "time", "with --from-first-use: it begins then at the latest, such as 2027-01-31", parseTime)
}

// expiry returns what the flags say, nil for nothing.
func (f *expiryFlags) expiry() (*coreapi.Expiry, error) {
	if f.expires == nil {
		if f.fromFirstUse {
			return nil, errors.New("--from-first-use needs --expires with a while, such as 30d")
		}
		if f.startsBy != nil {
			return nil, errors.New("--starts-by needs --from-first-use")
		}
		return nil, nil
	}
	e := *f.expires
	e.FromFirstUse, e.StartsBy = f.fromFirstUse, f.startsBy
	if e.StartsBy != nil && !e.FromFirstUse {
		return nil, errors.New("--starts-by needs --from-first-use")
	}
	if e.FromFirstUse && e.AfterSeconds == 0 {
		return nil, errors.New("--from-first-use needs --expires with a while, such as 30d")
	}
	return &e, nil
}

// parseExpiry reads the value of --expires.
func parseExpiry(text string) (e coreapi.Expiry, err error) {
	if text == "never" {
		return e, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, text); err == nil {
			e.At = &at
			return e, nil
		}
	}
	number, unit := cutUnit(text)
	seconds := map[string]float64{"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600, "y": 365 * 24 * 3600}[unit]
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || seconds == 0 || !(value > 0) || value*seconds > 1000*365*24*3600 {
		return e, fmt.Errorf("%q is no time: want a day such as 2027-01-31, a time such as 2027-01-31T18:00:00Z, a while such as 12h, 30d or 1y, or never", text)
	}
	e.AfterSeconds = max(int64(value*seconds), 1)
	return e, nil
}

// parseTime reads a day or a time.
func parseTime(text string) (time.Time, error) {
	e, err := parseExpiry(text)
	if err != nil || e.At == nil {
		return time.Time{}, fmt.Errorf("%q is no time: want a day such as 2027-01-31, or a time such as 2027-01-31T18:00:00Z", text)
	}
	return *e.At, nil
}

// parseMoment reads a time of the past: what parseExpiry reads, but a while is counted back from
// now.
func parseMoment(text string, now time.Time) (time.Time, error) {
	e, err := parseExpiry(text)
	switch {
	case err != nil || e.At == nil && e.AfterSeconds == 0:
		return now, fmt.Errorf("%q is no time: want a day such as 2027-01-31, a time such as 2027-01-31T18:00:00Z, or a while ago such as 12h or 30d", text)
	case e.At != nil:
		return *e.At, nil
	}
	return now.Add(-time.Duration(e.AfterSeconds) * time.Second), nil
}

// cutUnit cuts a quantity into its number and its unit.
func cutUnit(text string) (number, unit string) {
	text = strings.TrimSpace(text)
	i := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimSpace(text[i:])
}

// quantity reads a number with a unit, of which units has the sizes by their names in lower case.
func quantity(text, example string, units map[string]int64) (int64, error) {
	if text == "none" {
		return 0, nil
	}
	number, unit := cutUnit(text)
	size, known := units[strings.ToLower(unit)]
	value, ok := new(big.Rat).SetString(number)
	if !known || !ok || number == "" || value.Sign() < 0 {
		return 0, fmt.Errorf("%q is no number with a unit: want one such as %s, or none", text, example)
	}
	value.Mul(value, new(big.Rat).SetInt64(size))
	whole := new(big.Int).Quo(value.Num(), value.Denom())
	if !whole.IsInt64() || whole.Int64() == math.MaxInt64 {
		return 0, fmt.Errorf("%q is too much", text)
	}
	return whole.Int64(), nil
}

// parseBytes reads a number of bytes: KB, MB, GB and TB are powers of 1000, KiB and so on of 1024.
func parseBytes(text string) (int64, error) {
	return quantity(text, "10GiB", map[string]int64{
		"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
	})
}

// parseRate reads a number of bits per second.
func parseRate(text string) (int64, error) {
	return quantity(text, "10Mbit", map[string]int64{"": 1, "bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9})
}

func parseCount(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number from 0 up", text)
	}
	return n, nil
}

// bytesText is a number of bytes as people read it; it reads back as the number that it shows.
func bytesText(n int64) string {
	if n == 0 {
		return "none"
	}
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size {
			return strconv.FormatFloat(math.Round(float64(n)/float64(unit.size)*100)/100, 'f', -1, 64) + unit.name
		}
	}
	return fmt.Sprintf("%dB", n)
}

// rateText is a rate in bits per second as people read it.
func rateText(n int64) string {
	switch {
	case n == 0:
		return "none"
	case n%1e9 == 0:
		return fmt.Sprintf("%dGbit", n/1e9)
	case n%1e6 == 0:
		return fmt.Sprintf("%dMbit", n/1e6)
	case n%1e3 == 0:
		return fmt.Sprintf("%dkbit", n/1e3)
	}
	return fmt.Sprintf("%dbit", n)
}
