package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"nodeagent/cmd/node-core/internal/corestore"
)

// Environment variables with URLs of PostgreSQL.
const (
	envDatabase = "NODE_CORE_DATABASE"
	envDirect   = "NODE_CORE_DATABASE_DIRECT"
)

// maxURL bounds how many bytes of a file with a URL are read.
const maxURL = 64 << 10

// database says where Core's database is: a URL of PostgreSQL, from the flag, the file or the
// environment, in this order. Without one it is SQLite in the data folder.
type database struct{ url, file, direct, directFile string }

func (d *database) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&d.url, "database", "", "postgres://USER@HOST/DATABASE; without it SQLite in the data folder. $"+envDatabase+" is the same")
	flags.StringVar(&d.file, "database-file", "", "file with that URL, which keeps its password out of the list of processes")
}

func (d *database) addDirectTo(flags *pflag.FlagSet) {
	flags.StringVar(&d.direct, "database-direct", "", "URL of PostgreSQL itself where --database leads to a pooler. $"+envDirect+" is the same")
	flags.StringVar(&d.directFile, "database-direct-file", "", "file with that URL")
}

// postgres returns the URLs. The first is empty for SQLite.
func (d *database) postgres() (p corestore.Postgres, err error) {
	if p.URL, err = oneOf("--database", d.url, d.file, envDatabase); err != nil {
		return p, err
	}
	if p.Direct, err = oneOf("--database-direct", d.direct, d.directFile, envDirect); err != nil {
		return p, err
	}
	for flag, text := range map[string]string{"--database": p.URL, "--database-direct": p.Direct} {
		if text != "" && !corestore.IsPostgres(text) { // it may have a password
			return p, fmt.Errorf("read %s: want postgres://USER@HOST/DATABASE", flag)
		}
	}
	if p.URL == "" && p.Direct != "" {
		return p, errors.New("--database-direct goes with --database")
	}
	return p, nil
}

// open opens the database.
func (d *database) open(ctx context.Context, dataDir string) (*corestore.Store, error) {
	p, err := d.postgres()
	if err != nil {
		return nil, err
	}
	if p.URL == "" {
		return corestore.Open(ctx, dataDir)
	}
	return corestore.OpenPostgres(ctx, p)
}

// warning is about a password that every user of the host can read; empty without one.
func (d *database) warning() string {
	for _, text := range []string{d.url, d.direct} {
		if u, err := url.Parse(text); err == nil && u.User != nil {
			if _, has := u.User.Password(); has || u.Query().Has("password") {
				return "a password of the database is in the list of processes; use --database-file, $" + envDatabase + " or ~/.pgpass"
			}
		}
	}
	return ""
}

// oneOf returns the text of a flag, else that of the file, else that of the environment.
func oneOf(flag, text, file, environment string) (string, error) {
	switch {
	case text != "" && file != "":
		return "", fmt.Errorf("give either %s or %s-file", flag, flag)
	case text != "":
		return text, nil
	case file == "":
		return strings.TrimSpace(os.Getenv(environment)), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read %s-file: %w", flag, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxURL))
	if err != nil {
		return "", fmt.Errorf("read %s-file: %w", flag, err)
	}
	if text = strings.TrimSpace(string(raw)); text == "" {
		return "", fmt.Errorf("read %s-file: %s is empty", flag, file)
	}
	return text, nil
}
