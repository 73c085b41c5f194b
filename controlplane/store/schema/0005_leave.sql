-- How a tenant leaves: retention, the purge and its approval, what is kept of it, the notifications.

-- `purge_after`: the end of its retention as the plan had it when the tenant closed, so that a later edit of
-- the catalogue shortens nobody's. `purged_at`: nothing is left of it but this row. `observed_lifecycle`: the
-- one that was last brought about, from which the notifications tell what has changed.
ALTER TABLE tenant
    ADD COLUMN closed_at         timestamptz,
    ADD COLUMN purge_after       timestamptz,
    ADD COLUMN purged_at         timestamptz,
    ADD COLUMN observed_lifecycle text,
    ADD CONSTRAINT tenant_closed_or_not CHECK ((closed_at IS NULL) = (purge_after IS NULL)),
    ADD CONSTRAINT tenant_purged_is_closed CHECK (purged_at IS NULL OR closed_at IS NOT NULL);
UPDATE tenant SET observed_lifecycle = spec->>'lifecycle' WHERE observed_generation = generation;
-- When they closed was not recorded: they keep their data as long as any plan of ours did.
UPDATE tenant SET closed_at = clock_timestamp(), purge_after = clock_timestamp() + interval '90 days'
 WHERE spec->>'lifecycle' = 'closed';

CREATE INDEX tenant_grace ON tenant ((spec->>'grace_ends_at'))
    WHERE spec->>'lifecycle' = 'active' AND spec->>'grace_ends_at' IS NOT NULL;
CREATE INDEX tenant_trial ON tenant ((spec->>'trial_ends_at'))
    WHERE spec->>'lifecycle' = 'active' AND spec->>'trial_ends_at' IS NOT NULL;

ALTER TABLE placement
    DROP CONSTRAINT placement_state_check,
    ADD CONSTRAINT placement_state_check CHECK (state IN ('current', 'released', 'purged'));

-- A destroyed cluster's key stays as long as a snapshot of it does.
ALTER TABLE cluster ADD COLUMN keeps_key boolean NOT NULL DEFAULT false;
CREATE INDEX cluster_keeps_key ON cluster (id) WHERE keeps_key;

-- The order to delete a tenant for good. `digest` binds the approval to `content`, which is all that goes.
CREATE TABLE purge (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    text NOT NULL REFERENCES tenant,
    state        text NOT NULL DEFAULT 'requested'
                 CHECK (state IN ('requested', 'approved', 'done', 'withdrawn')),
    reason       text NOT NULL,
    content      jsonb NOT NULL,
    digest       text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    approved_by  text,
    approved_at  timestamptz,
    begun_at     timestamptz,
    done_at      timestamptz,
    certificate  jsonb,
    CONSTRAINT purge_two_persons CHECK (approved_by <> requested_by),
    CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
    CHECK (approved_by IS NOT NULL OR (state IN ('requested', 'withdrawn') AND begun_at IS NULL)),
    CHECK ((state = 'done') = (done_at IS NOT NULL AND certificate IS NOT NULL))
);
CREATE UNIQUE INDEX purge_one_open ON purge (tenant_id) WHERE state IN ('requested', 'approved', 'done');

-- What is kept of a tenant outside its database: a dump in the bucket or a snapshot of its cluster. Its name
-- is recorded before it is made.
CREATE TABLE data_copy (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text NOT NULL REFERENCES tenant,
    cluster_id  text NOT NULL REFERENCES cluster,
    purge_id    bigint CONSTRAINT data_copy_of_purge UNIQUE REFERENCES purge,
    kind        text NOT NULL CHECK (kind IN ('dump', 'snapshot')),
    name        text NOT NULL UNIQUE,
    state       text NOT NULL DEFAULT 'making' CHECK (state IN ('making', 'kept', 'failed', 'deleted')),
    manifest    jsonb,
    keep_days   integer NOT NULL CHECK (keep_days >= 1),
    actor       text NOT NULL,
    attempts    integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    error       text,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    verified_at timestamptz,
    kept_until  timestamptz,
    deleted_at  timestamptz,
    CHECK (state <> 'kept' OR (verified_at IS NOT NULL AND kept_until IS NOT NULL AND manifest IS NOT NULL))
);
CREATE INDEX data_copy_tenant ON data_copy (tenant_id, id DESC);
CREATE INDEX data_copy_kept ON data_copy (cluster_id) WHERE kind = 'snapshot' AND state IN ('making', 'kept');
CREATE INDEX data_copy_due ON data_copy (next_attempt_at) WHERE state IN ('making', 'kept') AND purge_id IS NULL;

-- What is told to the operator's systems, written in the transaction of what it tells of. `once`: the
-- same thing is told once.
CREATE TABLE notification (
    id           text PRIMARY KEY CHECK (id ~ '^msg_[0-9a-f]{32}$'),
    seq          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant_id    text NOT NULL REFERENCES tenant,
    kind         text NOT NULL,
    once         text NOT NULL,
    payload      jsonb NOT NULL,
    state        text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead', 'no_destination')),
    attempts     integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_until   timestamptz,
    answer       text,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    CONSTRAINT notice_once UNIQUE (tenant_id, kind, once)
);
CREATE INDEX notification_due ON notification (next_attempt_at) WHERE state = 'waiting';
