// Package coreapi is a client of Core's admin API, /api/v1, and has the bodies of its requests
// and answers. The commands of node-core use it, and other programs can.
//
// The API is served on two ways. Over the unix socket in Core's data folder (OverSocket) the
// file's permissions decide who may call; over HTTPS (OverHTTPS) a token does. docs/api.md
// describes the API, and a running Core serves its OpenAPI document under
// /api/v1/openapi.json.
//
// Each noun of the API has a file with its types and methods, so that there are many small ones. A
// program needs one import.
package coreapi
