// Package clientapps says what a client application gets from a subscription's own link: in which
// form, by which template, without which ways, and with which further headers. Everything that
// depends on the application's User-Agent is data: templates and rules, those of builtin and the
// operator's, which replace them by their names.
//
// A template is a configuration of the client with list items in the place of the proxies and of
// their names. It is filled as a tree and not as a text, so that no name of a node or a user can
// become anything but a name, and so that it can reach neither files nor the network. The time to fill
// it grows with its size and the number of proxies, both of which are bounded.
package clientapps
