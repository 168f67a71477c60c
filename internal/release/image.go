package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// rootfs is the kind of output that is the file system of an image.
const rootfs = "rootfs"

// imageUser is the number of the user and the group as whom a program runs in its image. No user of
// a host has it by default.
const imageUser = 65532

// image writes the file system of a program's image for an architecture, and the image's definition,
// which adds that file system to an empty image. The programs are static: they need nothing else but
// the authorities' certificates.
func (o options) image(program, arch string, contents []content) error {
	definition, err := os.ReadFile("packaging/" + program + ".Containerfile")
	if err != nil {
		return fmt.Errorf("read the definition of the image: %w", err)
	}
	text := strings.Replace(string(definition), "ARG VERSION\n", "ARG VERSION="+o.version+"\n", 1)
	if err := os.WriteFile(filepath.Join(o.out, program+".Containerfile"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the definition of the image: %w", err)
	}
	files, err := imageFiles(program, contents)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	compress, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // the level is valid
	archive := tar.NewWriter(compress)
	for _, f := range files {
		header := f.header
		header.ModTime, header.Size, header.Format = o.made, int64(len(f.data)), tar.FormatPAX
		if err := archive.WriteHeader(&header); err != nil {
			return fmt.Errorf("write %s to the image: %w", header.Name, err)
		}
		_, _ = archive.Write(f.data) // a buffer takes all
	}
	_, _ = archive.Close(), compress.Close()
	if err := os.WriteFile(filepath.Join(o.out, fmt.Sprintf("%s_%s_%s.%s.tar.gz", program, o.version, arch, rootfs)), packed.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	return nil
}

// imageFile is an entry of an image. The time and the size of header are not set.
type imageFile struct {
	header tar.Header
	data   []byte
}

// imageFiles returns the entries of a program's image, sorted by name: the program, its documents,
// the authorities' certificates, and the folders that it writes to.
func imageFiles(program string, contents []content) ([]imageFile, error) {
	roots := authorities()
	all := []imageFile{{tar.Header{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644}, roots}}
	for _, c := range contents {
		if c.Target != "/usr/bin/"+program && !strings.HasPrefix(c.Target, "/usr/share/doc/") {
			continue
		}
		data, err := os.ReadFile(c.Source)
		if err != nil {
			return nil, fmt.Errorf("read what the image has: %w", err)
		}
		all = append(all, imageFile{tar.Header{Name: c.Target[1:], Mode: int64(c.Info.Mode)}, data})
	}
	writable := []string{"var/lib/" + program}
	if program == "node-agent" {
		writable = append(writable, "run/node-agent")
	}
	for _, dir := range writable {
		all = append(all, imageFile{header: tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o700, Uid: imageUser, Gid: imageUser}})
	}
	all = append(all, imageFile{header: tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}})
	all = append(all, parents(all)...)
	slices.SortFunc(all, func(a, b imageFile) int { return cmp.Compare(a.header.Name, b.header.Name) })
	return all, nil
}

// parents returns the folders above files that are not among them.
func parents(files []imageFile) []imageFile {
	have := map[string]bool{}
	for _, f := range files {
		have[f.header.Name] = true
	}
	var dirs []imageFile
	for _, f := range files {
		for dir := filepath.Dir(strings.TrimSuffix(f.header.Name, "/")); dir != "."; dir = filepath.Dir(dir) {
			if name := dir + "/"; !have[name] {
				have[name] = true
				dirs = append(dirs, imageFile{header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}})
			}
		}
	}
	return dirs
}

// authorities returns the certificates of the authorities that Mozilla trusts without conditions, in
// PEM. They come from a module, so that every host makes the same image.
func authorities() []byte {
	var all bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&all, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes all
		}
	}
	return all.Bytes()
}
