-- +goose Up
CREATE TABLE routing_profiles (
    id              BIGINT PRIMARY KEY,
    name            TEXT COLLATE "C" NOT NULL UNIQUE,
    note            TEXT COLLATE "C" NOT NULL DEFAULT '',
    block_private   BIGINT NOT NULL DEFAULT 1,
    block_torrents  BIGINT NOT NULL DEFAULT 0,
    block_domains   TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    block_ips       TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    domain_strategy TEXT COLLATE "C" NOT NULL DEFAULT '',
    rules           TEXT COLLATE "C" NOT NULL DEFAULT '',
    dns             TEXT COLLATE "C" NOT NULL DEFAULT '',
    policy          TEXT COLLATE "C" NOT NULL DEFAULT '',
    created_at      BIGINT NOT NULL
);
CREATE TRIGGER note_ids AFTER INSERT ON routing_profiles REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();
INSERT INTO routing_profiles (id, name, created_at) VALUES (1, 'default', 0);
ALTER TABLE nodes ADD COLUMN routing_id BIGINT NOT NULL DEFAULT 0;

CREATE TABLE hosts (
    id          BIGINT PRIMARY KEY,
    protocol_id BIGINT NOT NULL REFERENCES node_protocols (id) ON DELETE CASCADE,
    enabled     BIGINT NOT NULL DEFAULT 1,
    position    BIGINT NOT NULL DEFAULT 0,
    remark      TEXT COLLATE "C" NOT NULL DEFAULT '',
    address     TEXT COLLATE "C" NOT NULL DEFAULT '',
    port        BIGINT NOT NULL DEFAULT 0,
    sni         TEXT COLLATE "C" NOT NULL DEFAULT '',
    fingerprint TEXT COLLATE "C" NOT NULL DEFAULT '',
    http_host   TEXT COLLATE "C" NOT NULL DEFAULT '',
    path        TEXT COLLATE "C" NOT NULL DEFAULT '',
    alpn        TEXT COLLATE "C" NOT NULL DEFAULT '',
    created_at  BIGINT NOT NULL
);
CREATE TRIGGER note_ids AFTER INSERT ON hosts REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();
CREATE INDEX hosts_by_protocol ON hosts (protocol_id, position, id);
