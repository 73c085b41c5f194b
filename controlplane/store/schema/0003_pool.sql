-- The warm pool: since when a cluster has been more than is asked for, and when a closed one was gone.
ALTER TABLE cluster ADD COLUMN surplus_since timestamptz, ADD COLUMN destroyed_at timestamptz;

-- Has a cluster ever held a tenant? Asked before it may be destroyed.
CREATE INDEX placement_ever ON placement (cluster_id);

-- What the last look at the pool found; one row.
CREATE TABLE pool (
    id        boolean PRIMARY KEY DEFAULT true CHECK (id),
    report    jsonb NOT NULL,
    observed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
