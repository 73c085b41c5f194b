-- no-transaction
-- Clusters in use, by the last look that found them as they should be: those that are due for the next.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cluster_observed ON cluster (observed_at)
    WHERE used > 0 AND needs_attention IS NULL AND destroyed_at IS NULL;
