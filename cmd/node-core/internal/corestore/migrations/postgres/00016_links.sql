-- +goose Up
ALTER TABLE subscriptions ADD COLUMN link_version BIGINT NOT NULL DEFAULT 0;
