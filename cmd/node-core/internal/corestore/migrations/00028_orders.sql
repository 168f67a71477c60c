-- +goose Up
-- Subscriptions in the order of their ends; those without one are last.
CREATE INDEX subscriptions_by_end ON subscriptions (coalesce(expires_at, 9223372036854775807), id);
CREATE INDEX subscriptions_by_status_and_end ON subscriptions (status, coalesce(expires_at, 9223372036854775807), id);
