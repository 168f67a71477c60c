//go:build race

package xray_test

// raceDetector tells whether the race detector watches this run.
const raceDetector = true
