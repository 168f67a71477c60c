package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/coreapi"
	"nodeagent/internal/secret"
)

// client makes the client of the Core that is meant: the one of the data folder, or the one at
// --api.
func (s *shared) client() (*coreapi.Client, error) {
	if s.api == "" {
		if s.tokenFile != "" || s.pin != "" {
			return nil, errors.New("--token-file and --api-pin are for a Core elsewhere: name it with --api")
		}
		client := adminapi.Dial(s.dataDir)
		client.Warned = s.warn
		return client, nil
	}
	if s.tokenFile == "" {
		return nil, errors.New("--api needs --token-file, with a token of 'node-core token add'")
	}
	token, err := s.readSecret("token", s.tokenFile)
	if err != nil {
		return nil, err
	}
	client, err := coreapi.OverHTTPS(s.api, token, s.pin)
	if err != nil {
		return nil, err
	}
	client.Warned = s.warn
	return client, nil
}

// maxSecret is how many bytes of a file with a secret are read.
const maxSecret = 4096

// readSecret reads a file that has a secret and nothing else. what names the secret in errors.
func (s *shared) readSecret(what, name string) (secret.Text, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", what, err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		s.warn(fmt.Sprintf("other users can read %s; 'chmod 600' mends that", name))
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxSecret))
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", what, err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" || strings.ContainsAny(text, " \t\r\n") {
		return "", fmt.Errorf("read the %s: %s has no %s, or more than one", what, name, what)
	}
	return secret.Text(text), nil
}
