// Package adminapi serves the admin API, /api/v1: everything that the commands of node-core can
// do, and what other programs do. docs/api.md describes it for those who use it, and the package
// coreapi is its client.
//
// # How to add an operation
//
// Its bodies are types of coreapi, with a doc tag where the name does not say enough. It is
// registered beside the others of its noun by read, or by change where it changes nodes'
// configurations, with the least role that may. Its function returns a row, or an error of
// corestore, or a badInput for a mistake of the caller. A method of coreapi.Client calls it.
//
// The package huma makes the OpenAPI document of the types and checks requests against it.
//
// The package has a file for each noun, and so more files than others: the operations share how they are
// registered, checked, audited and answered.
package adminapi
