-- +goose Up
-- What a node, or a set of nodes, does with traffic before it leaves.
CREATE TABLE routing_profiles (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL UNIQUE,
    note            TEXT    NOT NULL DEFAULT '',
    block_private   INTEGER NOT NULL DEFAULT 1, -- loopback, link-local and private destinations
    block_torrents  INTEGER NOT NULL DEFAULT 0, -- BitTorrent
    block_domains   TEXT    NOT NULL DEFAULT '[]', -- JSON list of Xray's words for domains
    block_ips       TEXT    NOT NULL DEFAULT '[]', -- JSON list of Xray's words for addresses
    domain_strategy TEXT    NOT NULL DEFAULT '', -- Xray's; '' for its default
    rules           TEXT    NOT NULL DEFAULT '', -- Xray's own list of rules; '' for none, as below
    dns             TEXT    NOT NULL DEFAULT '', -- Xray's own object
    policy          TEXT    NOT NULL DEFAULT '', -- Xray's own object
    created_at      INTEGER NOT NULL
) STRICT;
INSERT INTO routing_profiles (id, name, created_at) VALUES (1, 'default', 0);
-- 0 for none, which nodes of earlier versions have; nodes that are added get 1.
ALTER TABLE nodes ADD COLUMN routing_id INTEGER NOT NULL DEFAULT 0;

-- What links say: an inbound that has hosts has a link for each, in the place of its own.
CREATE TABLE hosts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    protocol_id INTEGER NOT NULL REFERENCES node_protocols (id) ON DELETE CASCADE,
    enabled     INTEGER NOT NULL DEFAULT 1,
    position    INTEGER NOT NULL DEFAULT 0, -- links are in this order
    remark      TEXT    NOT NULL DEFAULT '', -- template of the link's name
    address     TEXT    NOT NULL DEFAULT '', -- '' for the inbound's own, as below
    port        INTEGER NOT NULL DEFAULT 0,
    sni         TEXT    NOT NULL DEFAULT '',
    fingerprint TEXT    NOT NULL DEFAULT '',
    http_host   TEXT    NOT NULL DEFAULT '',
    path        TEXT    NOT NULL DEFAULT '',
    alpn        TEXT    NOT NULL DEFAULT '',
    created_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX hosts_by_protocol ON hosts (protocol_id, position, id);
