package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"nodeagent/internal/filewatch"
	"nodeagent/internal/hostfile"
	"nodeagent/internal/logkey"
)

// hostFiles reads certificates and keys, which are small.
var hostFiles = hostfile.New(1 << 20)

// Files is a certificate and its key in two files, which may be renewed while the
// certificate is served. Run must run, or a renewal is not noticed.
type Files struct {
	certPath, keyPath string
	log               *slog.Logger
	watch             *filewatch.Watch

	cert atomic.Pointer[tls.Certificate]
	// seen is the hash of both files' contents at the last look. Only the goroutine of Run
	// uses it after Watch has returned.
	seen [sha256.Size]byte
}

// Watch reads a certificate and its key, both PEM. It returns an error if they can't be
// used. It starts nothing.
func Watch(certPath, keyPath string, log *slog.Logger) (*Files, error) {
	f := &Files{certPath: certPath, keyPath: keyPath, log: log}
	watch, err := filewatch.New()
	if err != nil {
		log.Warn("the certificate's files can't be watched; they are read once a minute", logkey.Error, err)
	}
	// The folders are watched before the files are read, so that no renewal between the two
	// is missed.
	f.watch = watch
	watch.Add("certificate", f.look, certPath, keyPath)
	cert, seen, err := f.read()
	f.cert.Store(cert)
	f.seen = seen
	return f, err
}

// Run looks at the files whenever they may have changed, until ctx ends.
func (f *Files) Run(ctx context.Context) { f.watch.Run(ctx) }

// Get returns the certificate that is served now. It is for tls.Config.GetCertificate.
func (f *Files) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.cert.Load(), nil }

// endsSoon is how long before its end a certificate is warned of.
const endsSoon = 7 * 24 * time.Hour

// Trouble says why nodes refuse the certificate that is served, and what to do; empty where
// they do not. soon says the same of a certificate that ends within a week.
func (f *Files) Trouble(now time.Time) (trouble, soon string) {
	leaf := f.cert.Load().Leaf // tls.X509KeyPair has parsed it
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Sprintf("the certificate in %s ended at %s: nodes refuse this Core, and serve on without it; renew the file, which is read again by itself", f.certPath, leaf.NotAfter.UTC().Format(time.RFC3339)), ""
	case now.Before(leaf.NotBefore):
		return fmt.Sprintf("the certificate in %s begins at %s only: nodes refuse this Core until then; check this host's clock, or use another certificate", f.certPath, leaf.NotBefore.UTC().Format(time.RFC3339)), ""
	case now.Add(endsSoon).After(leaf.NotAfter):
		return "", fmt.Sprintf("the certificate in %s ends at %s; renew the file, or nodes will refuse this Core", f.certPath, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return "", ""
}

// Remind logs the trouble with the certificate that is served: at once, and once a day while
// it lasts, until ctx ends.
func (f *Files) Remind(ctx context.Context) {
	tick := time.NewTicker(24 * time.Hour)
	defer tick.Stop()
	for {
		f.logTrouble(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (f *Files) logTrouble(now time.Time) {
	switch trouble, soon := f.Trouble(now); {
	case trouble != "":
		f.log.Error("nodes refuse the certificate", logkey.Error, trouble)
	case soon != "":
		f.log.Warn("the certificate is to be renewed", logkey.Reason, soon)
	}
}

// look serves the certificate in the files if they have other contents than at the last
// look. If they can't be used, it logs that once, and the certificate before stays.
func (f *Files) look() {
	cert, seen, err := f.read()
	if seen == f.seen {
		return
	}
	f.seen = seen
	if err != nil {
		f.log.Error("the new certificate is not used, the one before goes on", logkey.Error, err)
		return
	}
	f.cert.Store(cert)
	f.log.Info("the renewed certificate is served", logkey.File, f.certPath)
	f.logTrouble(time.Now())
}

// read returns the certificate in the files. seen is the hash of what was read; it differs
// whenever the contents or the error differ.
func (f *Files) read() (cert *tls.Certificate, seen [sha256.Size]byte, err error) {
	hash := sha256.New()
	var contents [2][]byte
	for i, path := range []string{f.certPath, f.keyPath} {
		if contents[i], err = hostFiles.Read(path); err != nil {
			err = fmt.Errorf("read certificate: %w", err)
			_, _ = fmt.Fprintln(hash, err)
			return nil, [sha256.Size]byte(hash.Sum(nil)), err
		}
		_, _ = fmt.Fprintln(hash, len(contents[i]))
		_, _ = hash.Write(contents[i])
	}
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, [sha256.Size]byte(hash.Sum(nil)), fmt.Errorf("read certificate %s and key %s: %w", f.certPath, f.keyPath, err)
	}
	return &pair, [sha256.Size]byte(hash.Sum(nil)), nil
}
