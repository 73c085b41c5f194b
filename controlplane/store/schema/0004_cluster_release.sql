-- no-transaction
-- Which releases are named, and by which clusters.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cluster_release ON cluster (release);
