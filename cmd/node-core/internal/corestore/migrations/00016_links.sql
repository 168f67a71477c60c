-- +goose Up
-- Which of a subscription's own links counts: each rotation makes another one.
ALTER TABLE subscriptions ADD COLUMN link_version INTEGER NOT NULL DEFAULT 0;
