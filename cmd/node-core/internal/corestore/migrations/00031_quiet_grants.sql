-- +goose Up
-- Grants of clients that have little left and have not moved bytes on the node of late. They are good for
-- longer than others, and are not a part of what is divided.
ALTER TABLE grants ADD COLUMN quiet INTEGER NOT NULL DEFAULT 0;
CREATE INDEX grants_quiet ON grants (node_id) WHERE quiet = 1;
