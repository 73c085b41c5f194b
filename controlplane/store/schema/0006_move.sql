-- Moves: a tenant may have a second placement, the one it moves to ("target") or the one it has left and
-- that is kept until somebody confirms ("source"). Both hold a slot of their cluster.
ALTER TABLE placement DROP CONSTRAINT placement_state_check;
ALTER TABLE placement ADD CONSTRAINT placement_state_check
    CHECK (state IN ('current', 'target', 'source', 'released', 'purged'));
CREATE UNIQUE INDEX placement_target ON placement (tenant_id) WHERE state = 'target';
CREATE UNIQUE INDEX placement_source ON placement (tenant_id) WHERE state = 'source';

-- `destination`: "dedicated", "shared" or a cluster's id. `source`, `target`: numbers of placements. `by_hand`: a
-- person asked; else a change of plan did. `declined`: a person gave it up. `compared`: each table with its rows and whether they were the same.
CREATE TABLE move (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id     text NOT NULL REFERENCES tenant,
    destination          text NOT NULL,
    plan          text NOT NULL,
    by_hand       boolean NOT NULL,
    declined      boolean NOT NULL DEFAULT false,
    source        integer NOT NULL,
    target        integer,
    phase         text NOT NULL DEFAULT 'preparing'
                  CHECK (phase IN ('preparing', 'paused', 'moved', 'confirmed', 'abandoned', 'done', 'undone')),
    reason        text NOT NULL,
    actor         text NOT NULL,
    access_proof         text,
    copied_rows   bigint,
    copied_bytes  bigint,
    paused_at     timestamptz,
    pause_seconds double precision,
    compared      jsonb,
    checked       text CHECK (checked IN ('before', 'after')),
    moved_at      timestamptz,
    cleared_at    timestamptz,
    keep_until    timestamptz,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    FOREIGN KEY (tenant_id, source) REFERENCES placement,
    FOREIGN KEY (tenant_id, target) REFERENCES placement,
    CHECK ((finished_at IS NOT NULL) = (phase IN ('done', 'undone')))
);
CREATE UNIQUE INDEX move_one_open ON move (tenant_id) WHERE finished_at IS NULL;
CREATE INDEX move_tenant ON move (tenant_id, id DESC);

ALTER TABLE preview ADD COLUMN move_to text;
