package certs

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// lookEvery is how often the files are looked at, at the most.
const lookEvery = time.Second

// Files is a certificate that is renewed in its files while it is served.
type Files struct {
	certPath, keyPath string
	broken            func(error)

	mu     sync.Mutex
	cert   *tls.Certificate
	looked time.Time
	seen   string // which files cert is made of, or failed to be
}

// Watch reads a certificate and its key, PEM. broken is told once of new files that can't
// be used; those before go on.
func Watch(certPath, keyPath string, broken func(error)) (*Files, error) {
	f := &Files{certPath: certPath, keyPath: keyPath, broken: broken}
	f.seen = f.versions()
	cert, err := f.load()
	f.cert = cert
	return f, err
}

// Get is for tls.Config.GetCertificate.
func (f *Files) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) >= lookEvery {
		f.looked = now
		if versions := f.versions(); versions != f.seen {
			f.seen = versions
			if cert, err := f.load(); err != nil {
				f.broken(err)
			} else {
				f.cert = cert
			}
		}
	}
	return f.cert, nil
}

func (f *Files) load() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(f.certPath, f.keyPath)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return &cert, nil
}

// versions is another text when one of the files is another one.
func (f *Files) versions() string {
	var text strings.Builder
	for _, path := range []string{f.certPath, f.keyPath} {
		info, err := os.Stat(path)
		if err != nil {
			return "none: " + err.Error()
		}
		_, _ = fmt.Fprintln(&text, info.Size(), info.ModTime().UnixNano())
	}
	return text.String()
}
