package filewatch

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLinks is how many links a path may lead over, as in Linux.
const maxLinks = 40

// linkFolders are the folders, without links in their paths, in which a change can
// make a path lead to another file: those of the links on the way and of the file at
// its end. Of a folder that is missing it is the nearest that exists.
func symlinkDirs(path string) []string {
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return nil
		}
		path = here + "/" + path // not cleaned: ".." behind a link is another folder
	}
	var folders []string
	at := func(folder string) {
		if !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	folder, rest, links := "/", pathParts(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			folder = filepath.Dir(folder)
			continue
		}
		next := filepath.Join(folder, name)
		info, err := os.Lstat(next)
		switch {
		case err != nil || len(rest) > 0 && info.Mode().IsRegular():
			at(folder)
			return folders
		case info.Mode()&fs.ModeSymlink != 0:
			at(folder)
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return folders
			}
			if filepath.IsAbs(target) {
				folder = "/"
			}
			rest = append(pathParts(target), rest...)
		case len(rest) > 0:
			folder = next
		default:
			at(folder)
		}
	}
	return folders
}

// pathParts are the names in a path, ".." among them.
func pathParts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}
