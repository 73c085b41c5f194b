-- Custom domains that the subscription names and that the tenant did not get: [{host, reason}]. Kept beside
-- `spec`, which holds what it did get.
ALTER TABLE tenant ADD COLUMN refused_domains jsonb NOT NULL DEFAULT '[]';
