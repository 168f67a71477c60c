-- +goose Up
-- The User-Agent of the node's last heartbeat: the versions of the agent and its engines.
ALTER TABLE nodes ADD COLUMN agent TEXT NOT NULL DEFAULT '';
