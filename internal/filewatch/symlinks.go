package filewatch

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLinks is how many symbolic links a path may lead over. It is Linux' own bound
// (path_resolution(7)).
const maxLinks = 40

// symlinkDirs returns the folders in which a change can make path lead to another file: the
// folder of each symbolic link on the way, and the folder of the file at the end. Their own
// paths have no links. Where a folder does not exist, symlinkDirs returns the nearest folder
// above it that does.
func symlinkDirs(path string) []string {
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return nil
		}
		path = here + "/" + path // not cleaned: ".." behind a link is another folder
	}
	var folders []string
	add := func(folder string) {
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
			add(folder)
			return folders
		case info.Mode()&fs.ModeSymlink != 0:
			add(folder)
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
			add(folder)
		}
	}
	return folders
}

// pathParts returns the names in a path, ".." included.
func pathParts(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}
