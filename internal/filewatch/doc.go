// Package filewatch tells when the contents of files may have changed: by inotify events
// in all folders that lead to them, symbolic links included, and by a look every minute
// where inotify is not available or missed something.
package filewatch
