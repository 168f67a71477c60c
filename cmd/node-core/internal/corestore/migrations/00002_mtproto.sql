-- +goose Up
-- 16 random bytes in hex: what a subscription's MTProto links have for a key.
ALTER TABLE subscriptions ADD COLUMN mtproto_secret TEXT NOT NULL DEFAULT '';
UPDATE subscriptions SET mtproto_secret = lower(hex(randomblob(16)));
-- The contract's upstreams and advanced of services.mtproto; '' for neither.
ALTER TABLE nodes ADD COLUMN mtproto TEXT NOT NULL DEFAULT '';
