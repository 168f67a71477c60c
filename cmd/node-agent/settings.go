package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"nodeagent/agent"
	"nodeagent/internal/journal"
	"nodeagent/telemt"
)

const (
	defaultConfigFile = "/etc/node-agent/config.toml"
	defaultStateDir   = "/var/lib/node-agent"
	defaultRuntimeDir = "/run/node-agent"
	envPrefix         = "NODE_AGENT_"
)

// settings is what the operator configured: a flag wins over the environment,
// that over the file, that over the default. It does not change once loaded.
type settings struct {
	StateDir   string     `toml:"state_dir"`
	RuntimeDir string     `toml:"runtime_dir"`
	LogLevel   string     `toml:"log_level"`  // debug, info, warn, error
	LogFormat  string     `toml:"log_format"` // text, json
	Heartbeat  heartbeat  `toml:"heartbeat"`
	Accounting accounting `toml:"accounting"`
	Metrics    metricPart `toml:"metrics"`
	Xray       xrayPart   `toml:"xray"`
	Telemt     telemtPart `toml:"telemt"`
}

type heartbeat struct {
	Interval duration `toml:"interval"`
}

type accounting struct {
	Interval      duration `toml:"interval"`       // between two reads of the counters
	SessionLinger duration `toml:"session_linger"` // from a client's last stream to its offline
}

type metricPart struct {
	Listen string `toml:"listen"` // host:port for Prometheus; empty for nowhere
}

type xrayPart struct {
	AssetDir     string   `toml:"asset_dir"` // geoip.dat and geosite.dat
	DrainTimeout duration `toml:"drain_timeout"`
	// OrphanTimeout is how long a worker serves on without a daemon; zero for not at all.
	OrphanTimeout duration `toml:"orphan_timeout"`
	// ClientNetworks are the networks of the node itself that clients may reach.
	ClientNetworks []network `toml:"client_networks"`
	IPv6Prefix     int       `toml:"ipv6_prefix"` // bits of an IPv6 address by which limitIps counts
}

type telemtPart struct {
	Binary        string   `toml:"binary"` // a path, or a name that is looked for in PATH
	DrainTimeout  duration `toml:"drain_timeout"`
	UpgradeWithin duration `toml:"upgrade_within"`
}

// duration is written as Go writes it: 10s, 5m. It is a struct, so that the TOML decoder takes
// no number without a unit for nanoseconds.
type duration struct{ time.Duration }

func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return fmt.Errorf("%q is no duration; write it as 10s or 5m", text)
	}
	d.Duration = parsed
	return nil
}

// network is written as 127.0.0.0/8, or as an address for that address alone.
type network struct{ netip.Prefix }

func (n *network) UnmarshalText(text []byte) error {
	if address, err := netip.ParseAddr(string(text)); err == nil && address.Zone() == "" {
		address = address.Unmap()
		n.Prefix = netip.PrefixFrom(address, address.BitLen())
		return nil
	}
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil {
		return fmt.Errorf("%q is no network; write it as 10.1.0.0/16, fd00::/8 or 192.0.2.1", text)
	}
	if prefix != prefix.Masked() {
		return fmt.Errorf("%q has bits beyond its length; write the network as %s, or the address alone", text, prefix.Masked())
	}
	n.Prefix = prefix
	return nil
}

// prefixes returns the networks as the engine wants them.
func prefixes(networks []network) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(networks))
	for _, n := range networks {
		all = append(all, n.Prefix)
	}
	return all
}

// durationLimits bound the durations of the configuration. Shorter ones would make the daemon
// ask Core or read counters all the time, longer ones let it do that hardly ever. Zero stands
// for the default.
func (s *settings) durationLimits() []durationLimit {
	return []durationLimit{
		{"heartbeat.interval", s.Heartbeat.Interval, 10 * time.Millisecond, time.Hour},
		{"accounting.interval", s.Accounting.Interval, 10 * time.Millisecond, time.Minute},
		{"accounting.session_linger", s.Accounting.SessionLinger, 10 * time.Millisecond, time.Hour},
		{"xray.drain_timeout", s.Xray.DrainTimeout, 0, 30 * 24 * time.Hour},
		{"xray.orphan_timeout", s.Xray.OrphanTimeout, time.Second, 30 * 24 * time.Hour},
		{"telemt.drain_timeout", s.Telemt.DrainTimeout, 0, 30 * 24 * time.Hour},
		{"telemt.upgrade_within", s.Telemt.UpgradeWithin, 0, 30 * 24 * time.Hour},
	}
}

type durationLimit struct {
	name        string
	value       duration
	least, most time.Duration
}

// checkDurations returns an error for the first duration that is beyond its limits.
func (s *settings) checkDurations() error {
	for _, l := range s.durationLimits() {
		if d := l.value.Duration; d != 0 && (d < l.least || d > l.most) {
			return fmt.Errorf("%s is %s, want %s to %s", l.name, d, l.least, l.most)
		}
	}
	return nil
}

func defaultSettings() settings {
	return settings{
		StateDir: defaultStateDir, RuntimeDir: defaultRuntimeDir, LogLevel: "info", LogFormat: "text",
		Xray: xrayPart{
			AssetDir: "/usr/local/share/xray", DrainTimeout: duration{10 * time.Minute}, OrphanTimeout: duration{time.Hour},
			IPv6Prefix: 64, ClientNetworks: []network{},
		},
		Telemt: telemtPart{Binary: "telemt", DrainTimeout: duration{30 * time.Second}, UpgradeWithin: duration{time.Hour}},
	}
}

// settingFlags are the flags of a command that needs settings.
type settingFlags struct{ config, stateDir, runtimeDir string }

func (f *settingFlags) add(flags *pflag.FlagSet, names ...string) {
	for _, name := range names {
		switch name {
		case "config":
			flags.StringVar(&f.config, name, "", "configuration file, TOML (default "+defaultConfigFile+", where it exists)")
		case "state-dir":
			flags.StringVar(&f.stateDir, name, "", "folder with the node's key and what Core has not acknowledged (default "+defaultStateDir+")")
		case "runtime-dir":
			flags.StringVar(&f.runtimeDir, name, "", "folder with the sockets and counters, in memory (default "+defaultRuntimeDir+")")
		}
	}
}

func (f *settingFlags) load() (settings, error) {
	s := defaultSettings()
	path, named := f.config, f.config != ""
	if !named {
		path = os.Getenv(envPrefix + "CONFIG")
		if named = path != ""; !named {
			path = defaultConfigFile
		}
	}
	if err := s.readFile(path); err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return s, err
	}
	for _, o := range []struct {
		env, flag string
		to        *string
	}{
		{"STATE_DIR", f.stateDir, &s.StateDir},
		{"RUNTIME_DIR", f.runtimeDir, &s.RuntimeDir},
		{"LOG_LEVEL", "", &s.LogLevel},
		{"LOG_FORMAT", "", &s.LogFormat},
	} {
		if value := os.Getenv(envPrefix + o.env); value != "" {
			*o.to = value
		}
		if o.flag != "" {
			*o.to = o.flag
		}
	}
	return s, nil
}

func (s *settings) readFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	defer file.Close()
	err = toml.NewDecoder(file).DisallowUnknownFields().Decode(s)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("read configuration %s, line %d: the key %q is unknown", path, row, strings.Join(strict.Errors[0].Key(), "."))
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := decode.Position()
		return fmt.Errorf("read configuration %s, line %d: %w", path, row, decode)
	}
	if err == nil {
		err = s.checkDurations()
	}
	if bits := s.Xray.IPv6Prefix; err == nil && (bits < 32 || bits > 128) {
		err = fmt.Errorf("xray.ipv6_prefix is %d, want 32 to 128", bits)
	}
	if err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	return nil
}

func parseLevel(name string) (level slog.Level, err error) {
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return 0, fmt.Errorf("log level %q is unknown: want debug, info, warn or error", name)
	}
	return level, nil
}

// logger returns a log, and the level that it follows.
func (s settings) logger(std streams) (*slog.Logger, *slog.LevelVar, error) {
	first, err := parseLevel(s.LogLevel)
	if err != nil {
		return nil, nil, err
	}
	level := &slog.LevelVar{}
	level.Set(first)
	var makeHandler func(io.Writer, *slog.HandlerOptions) slog.Handler
	switch s.LogFormat {
	case "text":
		makeHandler = func(out io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(out, o) }
	case "json":
		makeHandler = func(out io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(out, o) }
	default:
		return nil, nil, fmt.Errorf("log format %q is unknown: want text or json", s.LogFormat)
	}
	return slog.New(journal.NewHandler(std.err, journal.Reads(), slog.HandlerOptions{Level: level}, makeHandler)), level, nil
}

// slowApply is how long a step of an apply can take, besides the time that telemt's open sessions
// have: beyond that it hangs.
const slowApply = 15 * time.Minute

// agentConfig returns what the agent is told; ip is the node's address.
func (s settings) agentConfig(ip string) agent.Config {
	return agent.Config{
		HeartbeatInterval: s.Heartbeat.Interval.Duration,
		CollectInterval:   s.Accounting.Interval.Duration,
		SessionLinger:     s.Accounting.SessionLinger.Duration,
		StepLimit:         slowApply + s.Telemt.DrainTimeout.Duration,
		IP:                ip,
	}
}

// telemtConfig returns what the MTProto engine is told; dir is its folder.
func (s settings) telemtConfig(dir string) telemt.Config {
	return telemt.Config{
		Binary: s.Telemt.Binary, StateDir: dir,
		DrainTimeout: s.Telemt.DrainTimeout.Duration, UpgradeWithin: s.Telemt.UpgradeWithin.Duration,
	}
}
