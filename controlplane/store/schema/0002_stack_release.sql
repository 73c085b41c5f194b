-- The archives of Terraform stacks that were published, each an object of the state bucket under its digest. Rows
-- name one by it and no row is ever deleted. `variables`: {stack: [those that it declares]}. `installed_at`: when a
-- worker that carries it last started; NULL where only a command has published it.
CREATE TABLE stack_release (
    digest       text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
    variables    jsonb NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    installed_at timestamptz
);

-- `release`: of the stacks, the one that this cluster and the placements on it are applied with; NULL until the first
-- apply, whose worker names its own. `upgraded_from`: the one before, as long as an upgrade is not over.
-- The key is of a column that is new and empty, so nothing is searched under its lock.
-- squawk-ignore adding-foreign-key-constraint
ALTER TABLE cluster ADD COLUMN release text REFERENCES stack_release;
ALTER TABLE cluster ADD COLUMN upgraded_from text;

-- What Terraform would have changed at the last look, [{"address", "action"}]; NULL where none was since the last apply.
ALTER TABLE stack ADD COLUMN drift jsonb;

-- A preview is of a tenant, or of the upgrade of a cluster to a release of the stacks. Code that knows previews of
-- tenants alone finds no tenant for one of a cluster, and fails that one preview.
-- squawk-ignore ban-drop-not-null
ALTER TABLE preview ALTER COLUMN tenant_id DROP NOT NULL;
ALTER TABLE preview ADD COLUMN cluster_id text, ADD COLUMN release text;
-- The table holds the previews of 30 days.
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE preview ADD CONSTRAINT preview_of_one CHECK (num_nonnulls(tenant_id, cluster_id) = 1);
