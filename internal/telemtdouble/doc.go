// Command telemtdouble stands in for telemt in tests. It has the command line, file, API and
// metrics of telemt 3.4.25, as far as the node uses them, and moves real bytes through a
// real port. A file beside the program switches faults on that telemt has in the field (see
// faults).
package main
