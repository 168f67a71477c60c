// Package filewatch calls a function when the contents of files may have changed. It uses
// inotify events of all folders that lead to the files, symbolic links included. Once a
// minute it calls the functions without an event, for file systems that send none.
package filewatch
