package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors of Confirm.
var (
	errNotAsked = errors.New("nobody can be asked, since standard input is no terminal; repeat the command with --yes")
	errRefused  = errors.New("nothing was changed")
)

// IsTerminal tells whether a person can be asked there.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Confirm asks a person at a terminal, and returns an error unless the answer is yes. A script
// is not asked: it has to give the flag --yes, whose value yes is.
func Confirm(yes bool, in *os.File, out io.Writer, question string) error {
	if yes {
		return nil
	}
	if !IsTerminal(in) {
		return fmt.Errorf("%s: %w", question, errNotAsked)
	}
	_, _ = fmt.Fprint(out, question+" [y/N] ")
	var answer string
	_, _ = fmt.Fscanln(in, &answer) // an empty line is no
	if word := strings.ToLower(answer); word != "y" && word != "yes" {
		return errRefused
	}
	return nil
}
