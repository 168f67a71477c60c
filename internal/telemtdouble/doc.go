// Command telemtdouble stands in for telemt in tests: the same command line,
// file, API and metrics as release 3.4.25 has, as far as the node uses them, and
// real bytes through a real port. What goes wrong in the field is switched on by
// a file beside the program (see faults), so that a test can bring it about.
package main
