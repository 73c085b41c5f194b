-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS note_stars ON note (stars);
