// Package supervise starts and watches child processes, which must not harm their parent. Each
// child is the leader of a process group. Its output goes to a function, line by line; a line is
// cut at 8 KiB. A child may outlive its parent: the next parent adopts it.
package supervise
