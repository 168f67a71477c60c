package cli

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestManPageHasEveryCommand(t *testing.T) {
	root := &cobra.Command{Use: "tool", Short: "Do things", Long: "Do things.\n.so is no request here.\n'nor is this", Example: "  tool node add a"}
	group := &cobra.Command{Use: "node", Short: "Nodes"}
	add := &cobra.Command{Use: "add NAME", Short: "Add a node", Example: "  tool node add a", RunE: func(*cobra.Command, []string) error { return nil }}
	add.Flags().StringP("region", "r", "eu", "free text with \\ in it")
	secret := &cobra.Command{Use: "worker", Hidden: true, RunE: add.RunE}
	group.AddCommand(add)
	root.AddCommand(group, secret)
	page := manPage(root, "1.2.3")
	for _, want := range []string{
		`.TH "TOOL" 1 "" "tool 1.2.3"`, `.SS "tool node add NAME [flags]"`, `.B \-r, \-\-region STRING`,
		"free text with \\e in it (default eu)", "\n\\&.so is", "\n\\&'nor",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "worker") {
		t.Error("the page has a hidden command")
	}
	man, err := exec.LookPath("man")
	if err != nil {
		t.Log("NOT CHECKED by man: it is not installed (apt-get install man-db)")
		return
	}
	render := exec.Command(man, "--warnings=w", "-l", "-Tutf8", "-")
	render.Stdin = strings.NewReader(page)
	var warnings strings.Builder
	render.Stderr = &warnings
	if out, err := render.Output(); err != nil || warnings.Len() > 0 || !strings.Contains(string(out), ".so is no request here.") {
		t.Errorf("man says: %v %s\n%s", err, warnings.String(), out)
	}
}
