-- +goose Up
-- Raised by each change of what subscriptions' own links say, so that what is made of it can be kept
-- until then. Subscriptions and users are not part of it: each fetch reads its own.
CREATE TABLE link_changes (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO link_changes (one, version) VALUES (1, 1);

ALTER TABLE subscriptions ADD COLUMN limit_devices INTEGER NOT NULL DEFAULT 0; -- 0 for no limit
ALTER TABLE plans         ADD COLUMN limit_devices INTEGER NOT NULL DEFAULT 0;

-- The devices that have fetched a subscription's own link and have said which one they are.
CREATE TABLE devices (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription_id INTEGER NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
    hwid            TEXT    NOT NULL, -- the application's word, as the others up to user_agent
    os              TEXT    NOT NULL DEFAULT '',
    os_version      TEXT    NOT NULL DEFAULT '',
    model           TEXT    NOT NULL DEFAULT '',
    user_agent      TEXT    NOT NULL DEFAULT '',
    name            TEXT    NOT NULL DEFAULT '', -- an operator's
    first_seen_at   INTEGER NOT NULL,
    last_seen_at    INTEGER NOT NULL,
    UNIQUE (subscription_id, hwid)
) STRICT;

-- When a subscription's own link was fetched last, and by which application.
CREATE TABLE link_fetches (
    subscription_id INTEGER PRIMARY KEY REFERENCES subscriptions (id) ON DELETE CASCADE,
    at              INTEGER NOT NULL,
    user_agent      TEXT    NOT NULL
) STRICT;

-- Configurations for families of client applications, and what they are told beside: JSON objects.
CREATE TABLE client_templates (
    name       TEXT    PRIMARY KEY,
    document   TEXT    NOT NULL,
    changed_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TABLE client_rules (
    name       TEXT    PRIMARY KEY,
    document   TEXT    NOT NULL,
    changed_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- +goose StatementBegin
CREATE TRIGGER links_nodes_added AFTER INSERT ON nodes
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_nodes_removed AFTER DELETE ON nodes
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_nodes_changed AFTER UPDATE OF name, region, host, ip, registered_at, mtproto, agent, enabled, address ON nodes WHEN (old.name, old.region, old.host, old.ip, old.registered_at, old.mtproto, old.agent, old.enabled, old.address) IS NOT (new.name, new.region, new.host, new.ip, new.registered_at, new.mtproto, new.agent, new.enabled, new.address)
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_node_protocols_added AFTER INSERT ON node_protocols
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_node_protocols_removed AFTER DELETE ON node_protocols
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_node_protocols_changed AFTER UPDATE OF node_id, tag, protocol, listen, port, config, link, status, enabled ON node_protocols WHEN (old.node_id, old.tag, old.protocol, old.listen, old.port, old.config, old.link, old.status, old.enabled) IS NOT (new.node_id, new.tag, new.protocol, new.listen, new.port, new.config, new.link, new.status, new.enabled)
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_hosts_added AFTER INSERT ON hosts
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_hosts_removed AFTER DELETE ON hosts
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_hosts_changed AFTER UPDATE ON hosts
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_access_groups_added AFTER INSERT ON access_groups
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_access_groups_removed AFTER DELETE ON access_groups
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_access_groups_changed AFTER UPDATE OF everything ON access_groups WHEN (old.everything) IS NOT (new.everything)
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_group_nodes_added AFTER INSERT ON group_nodes
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_group_nodes_removed AFTER DELETE ON group_nodes
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_group_nodes_changed AFTER UPDATE ON group_nodes
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_group_protocols_added AFTER INSERT ON group_protocols
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_group_protocols_removed AFTER DELETE ON group_protocols
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_group_protocols_changed AFTER UPDATE ON group_protocols
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_client_templates_added AFTER INSERT ON client_templates
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_client_templates_removed AFTER DELETE ON client_templates
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_client_templates_changed AFTER UPDATE ON client_templates
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_client_rules_added AFTER INSERT ON client_rules
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_client_rules_removed AFTER DELETE ON client_rules
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER links_client_rules_changed AFTER UPDATE ON client_rules
BEGIN
    UPDATE link_changes SET version = version + 1;
END;
-- +goose StatementEnd
