-- +goose Up
-- What an operator says of a node.
ALTER TABLE nodes ADD COLUMN enabled       INTEGER NOT NULL DEFAULT 1; -- 0: its document has no inbound
ALTER TABLE nodes ADD COLUMN note          TEXT    NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN tags          TEXT    NOT NULL DEFAULT '[]'; -- JSON list of texts
ALTER TABLE nodes ADD COLUMN address       TEXT    NOT NULL DEFAULT ''; -- in links; '' for what the node told
ALTER TABLE nodes ADD COLUMN multiplier    INTEGER NOT NULL DEFAULT 1000; -- thousandths: how much a byte counts
ALTER TABLE nodes ADD COLUMN budget_bytes  INTEGER NOT NULL DEFAULT 0; -- of the hosting provider, a month; 0 for none
ALTER TABLE nodes ADD COLUMN budget_day    INTEGER NOT NULL DEFAULT 1; -- of the month, on which it begins anew
ALTER TABLE nodes ADD COLUMN budget_action TEXT    NOT NULL DEFAULT 'warn'; -- warn, stop

-- Inbounds that are used on many nodes: an inbound with a template has its object, with the
-- overrides put into it.
CREATE TABLE protocol_templates (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    note       TEXT    NOT NULL DEFAULT '',
    protocol   TEXT    NOT NULL,
    listen     TEXT    NOT NULL,
    port       INTEGER NOT NULL,
    config     TEXT    NOT NULL, -- as in node_protocols
    link       TEXT    NOT NULL DEFAULT '{}',
    created_at INTEGER NOT NULL
) STRICT;
ALTER TABLE node_protocols ADD COLUMN enabled     INTEGER NOT NULL DEFAULT 1; -- 0: it is left out of the document
ALTER TABLE node_protocols ADD COLUMN note        TEXT    NOT NULL DEFAULT '';
ALTER TABLE node_protocols ADD COLUMN template_id INTEGER NOT NULL DEFAULT 0; -- 0 for none
ALTER TABLE node_protocols ADD COLUMN overrides   TEXT    NOT NULL DEFAULT '{}'; -- JSON object: what differs from the template
CREATE INDEX node_protocols_by_template ON node_protocols (template_id) WHERE template_id != 0;
