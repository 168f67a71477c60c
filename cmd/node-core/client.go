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
	token, err := s.readToken()
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

// maxToken is how many bytes of a token file are read.
const maxToken = 4096

func (s *shared) readToken() (secret.Text, error) {
	file, err := os.Open(s.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		s.warn(fmt.Sprintf("other users can read %s; 'chmod 600' mends that", s.tokenFile))
	}
	raw, err := io.ReadAll(io.LimitReader(file, maxToken))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("read the token: %s has no token, or more than one", s.tokenFile)
	}
	return secret.Text(token), nil
}
