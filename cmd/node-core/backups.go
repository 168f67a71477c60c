package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
)

const (
	leastBackupPause = time.Minute
	// mostBackupRetry bounds how long after a failure another try is made.
	mostBackupRetry = time.Hour
	// Names of backups sort by the time, in UTC. Other files in the folder are left alone.
	backupLayout = "20060102T150405Z"
	backupPrefix = "node-core-"
	// unfinishedPrefix is of a folder in which a backup is made. An end of Core can leave one.
	unfinishedPrefix = ".node-core-scheduled-"
	unfinishedLife   = 24 * time.Hour
)

var backupName = regexp.MustCompile(`^node-core-([0-9]{8}T[0-9]{6}Z)\.db$`)

// backupFlags say which backups Core makes by itself.
type backupFlags struct {
	dir   string
	every time.Duration
	keep  int
}

func (f *backupFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.dir, "backup-dir", "", "folder for backups that Core makes by itself; they have all keys (default none)")
	flags.DurationVar(&f.every, "backup-every", 24*time.Hour, "with --backup-dir: how long after a backup the next one is made")
	flags.IntVar(&f.keep, "backup-keep", 7, "with --backup-dir: how many of these backups are kept, the newest")
}

func (f *backupFlags) validate() error {
	switch {
	case f.dir == "":
		return nil
	case f.every < leastBackupPause:
		return fmt.Errorf("--backup-every %s: want %s or more", f.every, leastBackupPause)
	case f.keep < 1:
		return fmt.Errorf("--backup-keep %d: want 1 or more", f.keep)
	}
	return nil
}

// backups makes backups again and again.
type backups struct {
	backupFlags
	make func(ctx context.Context, file string) error
	tell func(ctx context.Context, reason string, since time.Time) error
	log  *slog.Logger

	// mu is held while the numbers for metrics are read or changed.
	mu       sync.Mutex
	last     time.Time // the newest backup; the zero time for none
	failures int64     // since Core began
}

// newBackups prepares the folder. It returns nil where no backups are to be made.
func newBackups(f backupFlags, dataDir string, database corestore.Postgres, store *corestore.Store, log *slog.Logger) (*backups, error) {
	if f.dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for backups: %w; name another one with --backup-dir", err)
	}
	b := &backups{backupFlags: f, tell: store.TellFailedBackup, log: log, make: func(ctx context.Context, file string) error {
		if database.URL != "" {
			return corestore.BackupPostgres(ctx, database, file)
		}
		return corestore.Backup(ctx, dataDir, file)
	}}
	own, err := b.own()
	if err != nil {
		return nil, err
	}
	if len(own) > 0 {
		b.last = own[len(own)-1].at
	}
	return b, nil
}

// run makes backups until ctx ends. A restart of Core makes none earlier than due.
func (b *backups) run(ctx context.Context) {
	due := b.last.Add(b.every)
	for wait.Until(ctx, time.Now, due, b.every, nil) {
		now := time.Now()
		if ahead := due.Round(0).Sub(now.Round(0)); ahead > 0 && ahead <= b.every {
			continue // the clock was set; a moment further ahead is of before it was set back
		}
		due = now.Add(b.every)
		err := b.once(ctx, now)
		if ctx.Err() != nil {
			return
		}
		b.mu.Lock()
		if err == nil {
			b.last = now
		} else {
			b.failures++
		}
		since := b.last
		b.mu.Unlock()
		if err == nil {
			continue
		}
		due = now.Add(min(b.every, mostBackupRetry))
		b.log.Error("make a scheduled backup", logkey.Error, err, logkey.NextIn, time.Until(due).Round(time.Second))
		if err := b.tell(ctx, err.Error(), since); err != nil && ctx.Err() == nil {
			b.log.Error("tell of a backup that failed", logkey.Error, err)
		}
	}
}

// numbers are for metrics.
func (b *backups) numbers() (last time.Time, failures int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last, b.failures
}

// once makes a backup under another name, gives it its name when it is whole, and deletes the oldest.
func (b *backups) once(ctx context.Context, now time.Time) (err error) {
	if err := b.clean(now); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.dir, unfinishedPrefix)
	if err != nil {
		return fmt.Errorf("make room for a backup: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	unfinished := filepath.Join(dir, "backup.db")
	if err := b.make(ctx, unfinished); err != nil {
		return err
	}
	name := filepath.Join(b.dir, backupPrefix+now.UTC().Format(backupLayout)+".db")
	// A link, and not a rename, leaves a file of that name as it is.
	if err := os.Link(unfinished, name); err != nil {
		return fmt.Errorf("name a backup: %w", err)
	}
	folder, err := os.Open(b.dir)
	if err != nil {
		return fmt.Errorf("write a backup's name to the disk: %w", err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("write a backup's name to the disk: %w", err)
	}
	own, err := b.own()
	if err != nil {
		return err
	}
	for _, old := range own[:max(0, len(own)-b.keep)] {
		if err := os.Remove(filepath.Join(b.dir, old.name)); err != nil {
			return fmt.Errorf("delete an old backup: %w", err)
		}
	}
	return nil
}

// backupFile is a backup that Core has made by itself.
type backupFile struct {
	name string
	at   time.Time
}

// own returns the folder's backups, the oldest first.
func (b *backups) own() (all []backupFile, err error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of the backups: %w", err)
	}
	for _, e := range entries {
		parts := backupName.FindStringSubmatch(e.Name())
		if parts == nil || !e.Type().IsRegular() {
			continue
		}
		if at, err := time.Parse(backupLayout, parts[1]); err == nil {
			all = append(all, backupFile{e.Name(), at})
		}
	}
	slices.SortFunc(all, func(a, b backupFile) int { return a.at.Compare(b.at) })
	return all, nil
}

// clean deletes what an end of Core in the middle of a backup has left.
func (b *backups) clean(now time.Time) error {
	left, err := filepath.Glob(filepath.Join(b.dir, unfinishedPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// A younger one may be of another instance, which is at it.
		if err == nil && now.Sub(info.ModTime()) > unfinishedLife {
			err = os.RemoveAll(dir)
		}
		if err != nil {
			return fmt.Errorf("delete an unfinished backup: %w", err)
		}
	}
	return nil
}
