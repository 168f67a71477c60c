// Package agent is what the daemon decides: when to ask Core, whether to apply,
// what to count for whom, what to tell and when to be quiet. It opens no
// socket, file or process; what it needs is in ports.go.
//
// One circle: Core → sync → apply → engines → collect and sessions → store →
// deliver → Core. Whatever is wrong elsewhere, the engines go on serving.
package agent
