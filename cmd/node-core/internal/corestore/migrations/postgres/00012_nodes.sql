-- +goose Up
ALTER TABLE nodes
    ADD COLUMN enabled       BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN note          TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN tags          TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    ADD COLUMN address       TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN multiplier    BIGINT NOT NULL DEFAULT 1000,
    ADD COLUMN budget_bytes  BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN budget_day    BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN budget_action TEXT COLLATE "C" NOT NULL DEFAULT 'warn';

CREATE TABLE protocol_templates (
    id         BIGINT PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    note       TEXT COLLATE "C" NOT NULL DEFAULT '',
    protocol   TEXT COLLATE "C" NOT NULL,
    listen     TEXT COLLATE "C" NOT NULL,
    port       BIGINT NOT NULL,
    config     TEXT COLLATE "C" NOT NULL,
    link       TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    created_at BIGINT NOT NULL
);
CREATE TRIGGER note_ids AFTER INSERT ON protocol_templates REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION note_ids();
ALTER TABLE node_protocols
    ADD COLUMN enabled     BIGINT NOT NULL DEFAULT 1,
    ADD COLUMN note        TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN template_id BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN overrides   TEXT COLLATE "C" NOT NULL DEFAULT '{}';
CREATE INDEX node_protocols_by_template ON node_protocols (template_id) WHERE template_id != 0;
