-- Restores: a tenant gets the rows that it had at a moment, or that a snapshot holds. One is a move whose
-- rows come from a cluster that is made for it alone, has no slots, and goes once they are copied.
ALTER TABLE cluster DROP CONSTRAINT cluster_slots_check;
ALTER TABLE cluster ADD CONSTRAINT cluster_slots_check
    CHECK (slots >= 1 OR (slots = 0 AND spec ? 'origin'));

ALTER TABLE move ADD COLUMN kind text NOT NULL DEFAULT 'move' CHECK (kind IN ('move', 'restore'));

-- `at` or `snapshot`: what was asked for. `number`: of the placement that the tenant lived on then.
-- `cluster_id`: the restored one. `release`: what the tenant's database on it has.
CREATE TABLE restore (
    move_id    bigint PRIMARY KEY REFERENCES move,
    at         timestamptz,
    snapshot   text,
    number     integer,
    cluster_id text UNIQUE REFERENCES cluster,
    release    text,
    opened_at  timestamptz,
    copied_at  timestamptz,
    CHECK (num_nonnulls(at, snapshot) = 1),
    CHECK ((number IS NULL) = (cluster_id IS NULL))
);

-- A restore whose steps are asked for: {"at"} or {"snapshot"}.
ALTER TABLE preview ADD COLUMN restore jsonb;
