package install

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nodeagent/telemt/process"
)

const (
	// maxSize bounds a download, and a program in an archive, in bytes. telemt has some 30 MB.
	maxSize = 512 << 20
	// fetchTimeout bounds a download.
	fetchTimeout = 10 * time.Minute
	// previous is what the name of the telemt before ends with.
	previous = ".previous"
)

// Options say what to install.
type Options struct {
	Source string // a file, or the URL of one: telemt's program, or a .tar.gz with it
	SHA256 string // of that file, in hexadecimal
	Target string // path of the program
	Anyway bool   // also a release that is known to be bad
}

// Installed is what was done.
type Installed struct {
	Version  string // with a "v", as in v3.4.23
	Previous string // path of the telemt that was there before; empty where there was none
}

// Install puts telemt into its place. An error means that nothing was changed there. The program is
// run once, with --version, after its checksum was found right.
func Install(ctx context.Context, o Options) (done Installed, err error) {
	sum, err := hex.DecodeString(o.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return done, fmt.Errorf("%q is no SHA-256: want 64 hexadecimal digits", o.SHA256)
	}
	dir := filepath.Dir(o.Target)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return done, fmt.Errorf("make the folder of telemt: %w", err)
	}
	// Beside its place: from there a rename is atomic, and files may be run there.
	work, err := os.MkdirTemp(dir, ".telemt-")
	if err != nil {
		return done, fmt.Errorf("make a folder beside %s: %w; run as root, or name another place in telemt.binary", o.Target, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	fetched := filepath.Join(work, "fetched")
	if err := fetch(ctx, o.Source, fetched, sum); err != nil {
		return done, err
	}
	program := filepath.Join(work, "telemt")
	if err := unpack(fetched, program); err != nil {
		return done, fmt.Errorf("read %s: %w", shown(o.Source), err)
	}
	if done.Version, err = process.AskVersion(ctx, program); err != nil {
		return done, fmt.Errorf("%w (file %s)", err, shown(o.Source))
	}
	if why := Bad(done.Version); why != "" && !o.Anyway {
		return done, fmt.Errorf("telemt %s is known to be bad: %s; install another release, or repeat the command with --anyway", done.Version[1:], why)
	}
	done.Previous, err = replace(program, o.Target)
	return done, err
}

// shown is a source for messages, without the password that a URL can have.
func shown(source string) string {
	if u, err := url.Parse(source); err == nil && u.User != nil {
		return u.Redacted()
	}
	return source
}

// fetch copies a file or what is at a URL to path, and checks its sum.
func fetch(ctx context.Context, source, path string, sum []byte) error {
	from, err := open(ctx, source)
	if err != nil {
		return fmt.Errorf("get telemt: %w", err)
	}
	defer from.Close()
	hash := sha256.New()
	if err := write(path, io.TeeReader(from, hash)); err != nil {
		return fmt.Errorf("get telemt from %s: %w", shown(source), err)
	}
	if got := hash.Sum(nil); !bytes.Equal(got, sum) {
		return fmt.Errorf("%s has the SHA-256 %x, and not %x: it is another file; nothing was installed", shown(source), got, sum)
	}
	return nil
}

func open(ctx context.Context, source string) (io.ReadCloser, error) {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		return os.Open(source)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, fmt.Errorf("%s is no URL", shown(source))
	}
	client := http.Client{Timeout: fetchTimeout}
	resp, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s answers %s", shown(source), resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// write writes a program of at most maxSize bytes to a new file, and to the disk.
func write(path string, from io.Reader) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	n, err := io.Copy(file, io.LimitReader(from, maxSize+1))
	if err == nil && n > maxSize {
		err = fmt.Errorf("it has more than %d bytes", int64(maxSize))
	}
	if err == nil {
		err = file.Chmod(0o755) // whatever the umask is
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// unpack writes the program that path is, or that is in the archive path, to a new file.
func unpack(path, program string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	in := bufio.NewReader(file)
	if magic, _ := in.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) { // RFC 1952, section 2.3.1
		return os.Rename(path, program)
	}
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	for archive := tar.NewReader(unzipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("the archive has no file telemt")
		}
		if err != nil {
			return err
		}
		if header.Typeflag == tar.TypeReg && filepath.Base(header.Name) == "telemt" {
			return write(program, archive)
		}
	}
}

// replace moves the program to target, and keeps what was there.
func replace(program, target string) (kept string, err error) {
	kept = target + previous
	switch err := os.Remove(kept); {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	default:
		return "", fmt.Errorf("make room for the telemt before: %w", err)
	}
	// A link, so that target is there at every moment.
	switch err := os.Link(target, kept); {
	case errors.Is(err, fs.ErrNotExist):
		kept = ""
	case err != nil:
		return "", fmt.Errorf("keep the telemt before: %w", err)
	}
	if err := os.Rename(program, target); err != nil {
		return "", fmt.Errorf("put telemt into its place: %w", err)
	}
	dir, err := os.Open(filepath.Dir(target))
	if err != nil {
		return kept, fmt.Errorf("write the folder of telemt to the disk: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return kept, fmt.Errorf("write the folder of telemt to the disk: %w", err)
	}
	return kept, nil
}
