// Package pulse tells a program that hangs from one that is busy: its main loops say what they do,
// and how long a step of that can take.
package pulse
