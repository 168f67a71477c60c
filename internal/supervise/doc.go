// Package supervise starts child processes that must not outlive their parent and must not
// harm it. Each child is the leader of a process group. The kernel kills it when the parent
// dies. Its output goes to a function, line by line; a line is cut at 8 KiB.
package supervise
