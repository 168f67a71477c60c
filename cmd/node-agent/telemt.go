package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/telemt/install"
)

func newTelemtCmd(std streams) *cobra.Command {
	cmd := &cobra.Command{Use: "telemt", Short: "Install telemt, which serves MTProto inbounds", Example: "  node-agent telemt install telemt.tar.gz --sha256 9f86d0..."}
	cmd.AddCommand(newTelemtInstallCmd(std))
	return cmd
}

func newTelemtInstallCmd(std streams) *cobra.Command {
	var flags settingFlags
	var o install.Options
	cmd := &cobra.Command{
		Use:   "install FILE|URL",
		Short: "Check a release of telemt and put it where the service finds it",
		Long: "Check a release of telemt and put it where the service finds it: to the path in telemt.binary, or in the\n" +
			"place of the telemt that the service finds now, or into /usr/local/bin. FILE is telemt's program or a\n" +
			".tar.gz with it. Releases that are known to harm clients are refused. The telemt before is kept beside it\n" +
			"as telemt.previous. A daemon that runs takes the new one when no session is open.",
		Example: "  node-agent telemt install telemt.tar.gz --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n" +
			"  node-agent telemt install https://releases.example/telemt.tar.gz --sha256 9f86d0...",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := flags.load()
			if err != nil {
				return err
			}
			o.Source = args[0]
			if o.Target, err = telemtTarget(s.Telemt.Binary, servicePath); err != nil {
				return err
			}
			done, err := install.Install(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(std.out, "telemt %s is at %s.\n", strings.TrimPrefix(done.Version, "v"), o.Target)
			if done.Previous != "" {
				fmt.Fprintf(std.out, "The telemt before is at %s; to go back to it: mv %s %s\n", done.Previous, done.Previous, o.Target)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&o.SHA256, "sha256", "", "SHA-256 of the file, which the release names")
	cmd.Flags().BoolVar(&o.Anyway, "anyway", false, "also a release that is known to be bad")
	_ = cmd.MarkFlagRequired("sha256") // the flag is there
	flags.add(cmd.Flags(), "config")
	return cmd
}

// servicePath is where systemd looks for programs, unless the unit says otherwise
// (systemd.exec(5), "Environment variables in spawned processes").
const servicePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"

// telemtTarget returns the path that the service runs as telemt.binary: for a name, the first that
// is in path, or one in /usr/local/bin.
func telemtTarget(binary, path string) (string, error) {
	if strings.Contains(binary, "/") {
		target, err := filepath.Abs(binary)
		if err != nil {
			return "", fmt.Errorf("find telemt.binary: %w", err)
		}
		return resolved(target), nil
	}
	for _, dir := range filepath.SplitList(path) {
		target := filepath.Join(dir, binary)
		if info, err := os.Stat(target); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return resolved(target), nil
		}
	}
	return filepath.Join("/usr/local/bin", binary), nil
}

// resolved follows symbolic links, so that the file is replaced and not the link. A link to nothing
// stays.
func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}
