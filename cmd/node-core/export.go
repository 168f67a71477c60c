package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nodeagent/coreapi"
)

// exportMark is the file by which an export recognizes the folder of an earlier one, which it may replace.
const exportMark = ".node-core-export"

// exported is what an export has written.
type exported struct {
	Directory     string       `json:"directory"`
	Subscriptions int          `json:"subscriptions"`
	Files         int          `json:"files"`
	Bytes         int64        `json:"bytes"`
	Without       []notWritten `json:"without"`
}

// notWritten is a subscription without files.
type notWritten struct {
	ID     int64  `json:"id"`
	Reason string `json:"reason"`
}

func newSubscriptionExportCmd(s *shared) *cobra.Command {
	var url string
	var pages bool
	cmd := command(s, &cobra.Command{
		Use:   "export DIR",
		Short: "Write the links of all subscriptions as static files, for a CDN",
		Long: "Write the links of all subscriptions as static files, for a CDN: DIR/sub/TOKEN/FORM for each form, and\n" +
			"page.LANGUAGE.html. DIR is replaced as a whole once everything is written. The tokens and the files let\n" +
			"clients in: nobody but you can read DIR, and the CDN must not list folders.",
		Example: "  node-core subscription export /var/lib/cdn --url https://cdn.example",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (exported, error) {
		return export(ctx, c, words[0], url, pages)
	}, func(w io.Writer, e exported) {
		line(w, "wrote", e.Directory)
		line(w, "subscriptions", e.Subscriptions)
		line(w, "files", fmt.Sprintf("%d, %s", e.Files, bytesText(e.Bytes)))
		for _, left := range e.Without {
			line(w, "left out", left.ID, left.Reason)
		}
	})
	cmd.Flags().StringVar(&url, "url", "", "address of the CDN, with the path before /sub and without a slash at the end; the pages name it")
	cmd.Flags().BoolVar(&pages, "pages", true, "write pages for browsers too; their QR codes take most of the time")
	_ = cmd.MarkFlagRequired("url")
	return cmd
}

// export writes the files of all subscriptions beside dir, and then puts the new folder in the place of dir.
// An error leaves dir as it was.
func export(ctx context.Context, c *coreapi.Client, dir, url string, pages bool) (e exported, err error) {
	e = exported{Directory: dir, Without: []notWritten{}}
	if dir, err = folderOf(dir); err != nil {
		return e, err
	}
	if err := replaceable(dir); err != nil {
		return e, err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".new-*") // nobody else can read it
	if err != nil {
		return e, fmt.Errorf("make a folder for the files: %w", err)
	}
	defer os.RemoveAll(fresh) // after a success this is the folder of before, or nothing
	if err := os.WriteFile(filepath.Join(fresh, exportMark), nil, 0o600); err != nil {
		return e, fmt.Errorf("write the mark of an export: %w", err)
	}
	subs := filepath.Join(fresh, "sub")
	if err := os.Mkdir(subs, 0o700); err != nil { // also where no subscription has files
		return e, fmt.Errorf("make a folder for the files: %w", err)
	}
	for of, err := range c.StaticFiles(ctx, url, pages) {
		if err != nil {
			return e, err
		}
		if of.Without != "" {
			e.Without = append(e.Without, notWritten{of.ID, of.Without})
			continue
		}
		if err := e.write(subs, of); err != nil {
			return e, err
		}
	}
	return e, exchange(fresh, dir)
}

// folderOf returns the absolute path of the folder that dir names, without links: an exchange of a link
// would leave the files of before where the link leads to.
func folderOf(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", dir, err)
	}
	to, err := filepath.EvalSymlinks(path)
	if err == nil {
		return to, nil
	}
	if _, missing := os.Lstat(path); errors.Is(missing, os.ErrNotExist) {
		return path, nil
	}
	return "", fmt.Errorf("follow the link %s: %w; name a folder, or make the one that the link leads to", dir, err)
}

// plainName is what a name that came over the network may be: no path, and no hidden file.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)

// write writes the files of one subscription below the folder.
func (e *exported) write(folder string, of coreapi.StaticFiles) error {
	if !plainName.MatchString(of.Token) {
		return fmt.Errorf("subscription %d: its token is no name of a folder", of.ID)
	}
	folder = filepath.Join(folder, of.Token)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make the folder of subscription %d: %w", of.ID, pathless(err))
	}
	for _, file := range of.Files {
		if !plainName.MatchString(file.Name) {
			return fmt.Errorf("subscription %d: %q is no name of a file", of.ID, file.Name)
		}
		if err := os.WriteFile(filepath.Join(folder, file.Name), []byte(file.Body), 0o600); err != nil {
			return fmt.Errorf("write the file %s of subscription %d: %w", file.Name, of.ID, pathless(err))
		}
		e.Files, e.Bytes = e.Files+1, e.Bytes+int64(len(file.Body))
	}
	e.Subscriptions++
	return nil
}

// pathless returns an error of a file without its path, which has the token.
func pathless(err error) error {
	if of, is := errors.AsType[*os.PathError](err); is {
		return of.Err
	}
	return err
}

// replaceable refuses a folder that has something else than an export.
func replaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return fmt.Errorf("look at the folder of before: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, exportMark)); err != nil {
		return fmt.Errorf("%s has files that no export has written, and would be replaced; name an empty folder or a new one", dir)
	}
	return nil
}

// exchange puts a folder in the place of another one, which may be missing, in one step: a program that
// copies the folder meanwhile sees either of both.
func exchange(fresh, dir string) error {
	err := os.Rename(fresh, dir) // works where dir is missing: os.Rename refuses every folder that is there
	if err == nil {
		return nil
	}
	if err := unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("put the new files in the place of %s: %w; the file system has to be able to exchange two folders (ext4, xfs, btrfs and tmpfs are)", dir, err)
	}
	return nil
}
