-- Releases of the tenants' schema, and their rollouts over the fleet.

-- The release that a tenant has, or is to be born with. NULL until the first release is registered:
-- the workers' own folder of migrations decides then.
ALTER TABLE tenant ADD COLUMN release text CHECK (release ~ '^[0-9]{4}$');

CREATE TABLE release (
    number     text PRIMARY KEY CHECK (number ~ '^[0-9]{4}$'),
    adapter    text NOT NULL CHECK (adapter IN ('sql', 'alembic', 'command')),
    checksum   text NOT NULL,
    actor      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Contents by digest: two releases share the files that they have in common.
CREATE TABLE migration_file (
    sha256 text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    body   bytea NOT NULL
);

CREATE TABLE release_file (
    number   text NOT NULL REFERENCES release,
    position integer NOT NULL,
    name     text NOT NULL,
    sha256   text NOT NULL,
    PRIMARY KEY (number, position),
    UNIQUE (number, name)
);

-- What was released is history, for whoever holds a connection.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a row of % is never changed', TG_TABLE_NAME;
END;
$$;
CREATE TRIGGER release_is_immutable BEFORE UPDATE OR DELETE ON release
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER release_file_is_immutable BEFORE UPDATE OR DELETE ON release_file
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER migration_file_is_immutable BEFORE UPDATE OR DELETE ON migration_file
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A dangerous statement of a release. No rollout starts while one is neither accepted nor history.
CREATE TABLE release_finding (
    id          text PRIMARY KEY,
    number      text NOT NULL REFERENCES release,
    rule        text NOT NULL,
    file        text NOT NULL,
    line        integer NOT NULL,
    statement   text NOT NULL,
    message     text NOT NULL,
    accepted_by text,
    accepted_at timestamptz,
    reason      text,
    CHECK ((accepted_by IS NULL) = (accepted_at IS NULL))
);
CREATE INDEX release_finding_release ON release_finding (number);

CREATE TABLE rollout (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release     text NOT NULL REFERENCES release,
    state       text NOT NULL CHECK (state IN ('running', 'paused', 'halted', 'aborted', 'done')),
    reason      text,
    spec        jsonb NOT NULL,
    wave        integer NOT NULL DEFAULT 0,
    not_before  timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CHECK ((finished_at IS NOT NULL) = (state IN ('aborted', 'done')))
);
CREATE UNIQUE INDEX rollout_one_open ON rollout ((true)) WHERE state IN ('running', 'paused', 'halted');

-- One tenant of a rollout. `fencing_token` only rises; a write that carries a lower one is refused.
CREATE TABLE rollout_target (
    rollout_id      bigint NOT NULL REFERENCES rollout,
    tenant_id       text NOT NULL REFERENCES tenant,
    wave            integer NOT NULL,
    cluster_id      text NOT NULL,
    from_release    text,
    state           text NOT NULL DEFAULT 'pending'
                    CHECK (state IN ('pending', 'running', 'done', 'failed', 'skipped', 'stale')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    fencing_token           bigint NOT NULL DEFAULT 0,
    holder          text,
    until           timestamptz NOT NULL DEFAULT '-infinity',
    file            text,
    statement       text,
    error           text,
    seconds         double precision,
    started_at      timestamptz,
    finished_at     timestamptz,
    PRIMARY KEY (rollout_id, tenant_id)
);
CREATE INDEX rollout_target_open ON rollout_target (rollout_id, wave, cluster_id, next_attempt_at)
    WHERE state IN ('pending', 'running');
CREATE INDEX rollout_target_tenant ON rollout_target (tenant_id, rollout_id DESC);

-- Copies of the most divergent tenants, migrated to see how long it takes and what it locks.
CREATE TABLE rehearsal (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release         text NOT NULL REFERENCES release,
    copies          integer NOT NULL,
    actor           text NOT NULL,
    state           text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    holder          text,
    until           timestamptz NOT NULL DEFAULT '-infinity',
    attempts        integer NOT NULL DEFAULT 0,
    results         jsonb NOT NULL DEFAULT '[]',
    error           text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz
);

-- The shape of a tenant's schema as last seen, its description kept once for all that share it.
CREATE TABLE schema_shape (
    digest text PRIMARY KEY,
    lines  jsonb NOT NULL
);
CREATE TABLE tenant_schema (
    tenant_id text PRIMARY KEY REFERENCES tenant,
    release   text,
    digest    text NOT NULL REFERENCES schema_shape,
    seen_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX tenant_schema_digest ON tenant_schema (digest);
