// Package supervise starts child processes that must not outlive their parent
// and must not be able to harm it: each has a process group of its own, dies
// when the parent does, has one waiter, and its output goes line by line,
// bounded, to a function.
package supervise
