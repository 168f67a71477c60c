-- +goose Up
-- 1 for an outbound that is left out of its node's configuration.
ALTER TABLE node_outbounds ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;
