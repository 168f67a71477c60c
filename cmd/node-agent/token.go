package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"nodeagent/coreclient/wire"
)

const (
	// maxToken bounds a file with a join token, in bytes.
	maxToken = 64 << 10
	// tokenCredential is the name of the credential with a join token (systemd.exec(5),
	// LoadCredential=).
	tokenCredential = "node-agent.token"
	tokenEnv        = envPrefix + "TOKEN"
	credentialsEnv  = "CREDENTIALS_DIRECTORY"
)

// tokenSource is where a join token is read from. A token in the arguments of a process can be
// read by every user of the host (proc_pid_cmdline(5)); the other sources are for those who
// mind that.
type tokenSource struct {
	argument string    // the token, or "-" for stdin; empty for none
	file     string    // "-" for stdin; empty for none
	stdin    io.Reader // where "-" leads
}

// read returns the token of the source that the command line names, or else that of the
// environment, or else that of the credential. found is false where there is none.
func (s tokenSource) read() (token wire.JoinToken, found bool, err error) {
	if s.argument != "" && s.file != "" {
		return token, false, errors.New("give the join token either as an argument or with --token-file")
	}
	path := s.file
	switch {
	case s.argument == "-":
		path = "-"
	case s.argument != "":
		token, err = wire.ParseJoinToken(s.argument)
		return token, true, err
	}
	if path == "" {
		if text := os.Getenv(tokenEnv); text != "" {
			token, err = wire.ParseJoinToken(text)
			return token, true, about(tokenEnv, err)
		}
		dir := os.Getenv(credentialsEnv)
		if dir == "" {
			return token, false, nil
		}
		path = filepath.Join(dir, tokenCredential)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return token, false, nil
		}
	}
	text, err := s.open(path)
	if err != nil {
		return token, false, fmt.Errorf("read join token: %w", err)
	}
	token, err = wire.ParseJoinToken(text)
	if path == "-" {
		path = "standard input"
	}
	return token, true, about(path, err)
}

// open reads a file or, for "-", standard input.
func (s tokenSource) open(path string) (string, error) {
	from := s.stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, maxToken+1))
	if err == nil && len(text) > maxToken {
		err = fmt.Errorf("%s has more than %d bytes: that is no join token", path, maxToken)
	}
	return string(text), err
}

// about names in err where the token came from, without the token.
func about(source string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	return nil
}
