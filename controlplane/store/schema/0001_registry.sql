-- The registry: the control plane's own truth. Everything else (Redis, queues, caches) may be lost.
--
-- What a column can hold, other than its type says, stands in a CHECK: states are those of an enum in
-- controlplane/domain, and tests/store/test_schema.py holds the two equal. Every foreign key has an index, so
-- that a row can be deleted without a search of whole tables; what workers look for as due has a partial
-- one, so that the search costs no more the larger the fleet is.

-- ------------------------------------------------------------------------------------- billing

-- The inbox: one row for each billing event that was answered 2xx. `body`: just as it was signed, emptied
-- some time after it was handled; the row stays, so that a late duplicate is still a duplicate. `subject`: the
-- customer, else the contract, that it is about; the job of that name handles all that were received.
CREATE TABLE stripe_event (
    id              text PRIMARY KEY,
    type            text NOT NULL,
    api_version     text,
    livemode        boolean NOT NULL,
    created_at      timestamptz NOT NULL,
    body            bytea NOT NULL,
    contract_id     text,
    subject         text NOT NULL,
    state           text NOT NULL CHECK (state IN ('received', 'applied', 'ignored', 'parked')),
    reason          text,
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    handled_at      timestamptz
);
CREATE INDEX stripe_event_received ON stripe_event (subject, received_at) WHERE state = 'received';
CREATE INDEX stripe_event_parked ON stripe_event (received_at DESC, id DESC) WHERE state = 'parked';
CREATE INDEX stripe_event_newest ON stripe_event (received_at DESC, id DESC);
CREATE INDEX stripe_event_body ON stripe_event (handled_at)
    WHERE state IN ('applied', 'ignored') AND length(body) > 0;

-- `release`: of its schema, the one that it has or is to be born with. NULL until the first release is
-- registered: the workers' own folder of migrations decides then.
-- `refused_domains`: [{host, reason}] that a contract wishes for and that it did not get; `spec` has the
-- others.
-- `observed_lifecycle`: the one that was last brought about; notifications tell what has changed since.
-- `purge_after`: the end of its retention as the plan had it when the tenant closed, so that a later edit of
-- the catalogue shortens nobody's. `purged_at`: nothing is left of it but this row.
-- `clone_of`: it is made with the rows of that one, by a transfer, and nobody pays for it.
-- `former_slugs`: {slug: until when its host leads to this tenant's}. Nobody else gets one as long as it stands here:
-- no index can hold that over two columns, so who takes a slug does it under a lock of its name (store/tenant.py).
CREATE TABLE tenant (
    id                  text PRIMARY KEY CHECK (id ~ '^t-[a-z2-7]{12}$'),
    slug                text NOT NULL CONSTRAINT tenant_slug_taken UNIQUE,
    former_slugs        jsonb NOT NULL DEFAULT '{}',
    display_name        text NOT NULL,
    customer_id         text NOT NULL,
    spec                jsonb NOT NULL,
    generation          bigint NOT NULL DEFAULT 1,
    observed_generation bigint NOT NULL DEFAULT 0,
    status              jsonb,
    observed_at         timestamptz,
    observed_lifecycle  text,
    next_observation_at timestamptz,
    release             text CHECK (release ~ '^[0-9]{4}$'),
    refused_domains     jsonb NOT NULL DEFAULT '[]',
    needs_attention     text,
    runbook             text,
    clone_of            text REFERENCES tenant,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    paid_at             timestamptz,
    started_at          timestamptz,
    ready_at            timestamptz,
    closed_at           timestamptz,
    purge_after         timestamptz,
    purged_at           timestamptz,
    CHECK ((needs_attention IS NULL) = (runbook IS NULL)),
    CONSTRAINT tenant_slug_not_former CHECK (NOT former_slugs ? slug),
    CONSTRAINT tenant_closed_or_not CHECK ((closed_at IS NULL) = (purge_after IS NULL)),
    CONSTRAINT tenant_purged_is_closed CHECK (purged_at IS NULL OR closed_at IS NOT NULL)
);
CREATE INDEX tenant_customer ON tenant (customer_id);
CREATE INDEX tenant_clone_of ON tenant (clone_of);
CREATE INDEX tenant_former_slugs ON tenant USING gin (former_slugs) WHERE former_slugs <> '{}';
CREATE INDEX tenant_next_observation ON tenant (next_observation_at) WHERE next_observation_at IS NOT NULL;
CREATE INDEX tenant_attention ON tenant (id) WHERE needs_attention IS NOT NULL;
CREATE INDEX tenant_grace ON tenant ((spec->>'grace_ends_at'))
    WHERE spec->>'lifecycle' = 'active' AND spec->>'grace_ends_at' IS NOT NULL;
CREATE INDEX tenant_trial ON tenant ((spec->>'trial_ends_at'))
    WHERE spec->>'lifecycle' = 'active' AND spec->>'trial_ends_at' IS NOT NULL;

-- Who pays, as the billing source names it. `revision` guards what is fetched: a writer whose objects were fetched
-- before somebody else wrote must fetch again, so an older object never overwrites a newer one. Its row is the lock
-- under which contracts are bound. `wishes`: what its tenant is to be called, as it was last read: {slug, name}.
CREATE TABLE customer (
    id       text PRIMARY KEY,
    revision bigint NOT NULL DEFAULT 0,
    wishes   jsonb NOT NULL DEFAULT '{}'
);

-- What the billing source says is owed. `terms`: as it was last read, see domain/contract.py; NULL until it could be.
-- `tenant_id`: whom it is for; many may be for one. `paid_at`: the first moment of which the source says that it
-- was payable and paid. `wishes`: those of the checkout that it was bought by. `proposed`: {tenant, actor}, a binding
-- that one person has asked for and another one has not yet. `alone`: a person has said that it is for a tenant of
-- its own.
CREATE TABLE contract (
    id             text PRIMARY KEY,
    customer_id    text REFERENCES customer,
    standing       text CHECK (standing IN ('pending', 'live', 'overdue', 'stopped', 'ended')),
    terms          jsonb,
    outcome        text NOT NULL CHECK (outcome IN ('new', 'applied', 'waiting', 'ignored', 'parked')),
    reason         text,
    tenant_id      text REFERENCES tenant,
    wishes         jsonb NOT NULL DEFAULT '{}',
    proposed       jsonb,
    alone          boolean NOT NULL DEFAULT false,
    first_event_at timestamptz NOT NULL,
    paid_at        timestamptz,
    fetched_at     timestamptz,
    CHECK ((standing IS NULL) = (terms IS NULL))
);
CREATE INDEX contract_oldest ON contract (first_event_at, id);
CREATE INDEX contract_customer ON contract (customer_id);
CREATE INDEX contract_tenant ON contract (tenant_id);

-- ------------------------------------------------------------------------- clusters and placements

-- `used`: slots that hold a placement; `ever_used`: one ever did. `surplus_since`: the warm pool has had no use for it since then. `keeps_key`: it is destroyed but for its
-- key, which stays as long as a snapshot of it does. A restored cluster (`spec` names its origin) is made for
-- one restore and has no slots.
CREATE TABLE cluster (
    id                  text PRIMARY KEY CHECK (id ~ '^c-[a-z2-7]{12}$'),
    cluster_class       text NOT NULL,
    slots               integer NOT NULL,
    used                integer NOT NULL DEFAULT 0,
    ever_used           boolean NOT NULL DEFAULT false,
    spec                jsonb NOT NULL,
    generation          bigint NOT NULL DEFAULT 1,
    observed_generation bigint NOT NULL DEFAULT 0,
    status              jsonb,
    observed_at         timestamptz,
    endpoint            jsonb,
    needs_attention     text,
    runbook             text,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    hardened_at         timestamptz,
    ready_at            timestamptz,
    surplus_since       timestamptz,
    destroyed_at        timestamptz,
    keeps_key           boolean NOT NULL DEFAULT false,
    CONSTRAINT cluster_used CHECK (used BETWEEN 0 AND slots),
    CONSTRAINT cluster_slots_check CHECK (slots >= 1 OR (slots = 0 AND spec ? 'origin')),
    CHECK ((needs_attention IS NULL) = (runbook IS NULL))
);
CREATE INDEX cluster_room ON cluster (cluster_class, (ready_at IS NULL), used DESC, created_at, id)
    WHERE used < slots AND (slots > 1 OR NOT ever_used) AND needs_attention IS NULL
      AND spec->>'lifecycle' = 'active';
CREATE INDEX cluster_keeps_key ON cluster (id) WHERE keeps_key;
CREATE INDEX cluster_attention ON cluster (id) WHERE needs_attention IS NOT NULL;

-- A tenant lives on its `current` placement. In a transfer it has a second one: the `target` that it goes to, or
-- the `source` that it has left and that is kept until somebody confirms. These three hold a slot. `released`: its
-- database is gone, and `released_by` says by whose word; what its cluster's stack has of it goes next.
-- Its login: `username` is the one of the two that the secret names, `password_from` the version of the secret that
-- its password was last set from. `generation` counts the passwords that the secret has named; `requested` is ahead
-- of it while somebody has asked for a new one. `retire_at`: when the login that was in use before loses its
-- password; until then both get in, and connections move over. `access_proof`: placement, secret and release were
-- shown to work together.
CREATE TABLE placement (
    id            text PRIMARY KEY CHECK (id ~ '^p-[a-z2-7]{12}$'),
    tenant_id     text NOT NULL REFERENCES tenant,
    cluster_id    text NOT NULL REFERENCES cluster,
    state         text NOT NULL CHECK (state IN ('current', 'target', 'source', 'released', 'purged')),
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_by   text,
    username      text NOT NULL,
    password_from text,
    generation    integer NOT NULL DEFAULT 1 CHECK (generation >= 1),
    requested     integer NOT NULL DEFAULT 1,
    rotated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    retire_at     timestamptz,
    access_proof  text,
    CHECK (state NOT IN ('released', 'purged') OR released_by IS NOT NULL)
);
CREATE INDEX placement_tenant ON placement (tenant_id);
CREATE UNIQUE INDEX placement_current ON placement (tenant_id) WHERE state = 'current';
CREATE UNIQUE INDEX placement_target ON placement (tenant_id) WHERE state = 'target';
CREATE UNIQUE INDEX placement_source ON placement (tenant_id) WHERE state = 'source';
CREATE INDEX placement_cluster ON placement (cluster_id);

-- A cluster's `used` is kept with its placements, so that who looks for room reads one row and no count can be
-- forgotten. The row that is written is the lock: two tenants never take the last slot.
CREATE FUNCTION keep_used() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE cluster SET ever_used = true, used = used
        + CASE WHEN NEW.state IN ('released', 'purged') THEN 0 ELSE 1 END
        - CASE WHEN TG_OP = 'INSERT' OR OLD.state IN ('released', 'purged') THEN 0 ELSE 1 END
     WHERE id = NEW.cluster_id;
    RETURN NULL;
END;
$$;
CREATE TRIGGER placement_takes_a_slot AFTER INSERT ON placement FOR EACH ROW EXECUTE FUNCTION keep_used();
CREATE TRIGGER placement_frees_its_slot AFTER UPDATE OF state ON placement
    FOR EACH ROW WHEN ((OLD.state IN ('released', 'purged')) <> (NEW.state IN ('released', 'purged')))
    EXECUTE FUNCTION keep_used();

-- What the last look at the warm pool, or the last comparison with the billing source, found.
CREATE TABLE report (
    about       text PRIMARY KEY CHECK (about IN ('pool', 'comparison')),
    content     jsonb NOT NULL,
    observed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- ----------------------------------------------------------------------------------- hosts and routes

-- A custom domain. The primary key is what keeps one domain from routing to two tenants.
CREATE TABLE hostname (
    host         text CONSTRAINT hostname_taken PRIMARY KEY,
    tenant_id    text NOT NULL REFERENCES tenant,
    provider_id  text,
    status       text NOT NULL DEFAULT 'new',
    ssl_status   text NOT NULL DEFAULT 'new',
    records      jsonb NOT NULL DEFAULT '[]',
    errors       jsonb NOT NULL DEFAULT '[]',
    refused      text,
    next_poll_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX hostname_tenant ON hostname (tenant_id);

-- One sequence over all tenants, so that of two entries for one host the newer is known even when the host
-- has gone from one tenant to another.
CREATE SEQUENCE epoch;

-- What each host should serve, and the epoch under which it was decided. The cache is filled from here.
CREATE TABLE route (
    host       text CONSTRAINT route_taken PRIMARY KEY,
    tenant_id  text NOT NULL REFERENCES tenant,
    payload    jsonb NOT NULL,
    epoch      bigint NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX route_tenant ON route (tenant_id);

-- --------------------------------------------------------------------------------------- operations

-- The one queue: work that waits or runs. What has ended leaves it, so that a search for what is due costs no
-- more the longer the past is.
--
-- `subject`: what it is about; one job of a kind waits for each, and who asks again adds a cause to it.
-- `lock`: what it must have to itself; one runs for each, whatever its kind. `lane`: whether it may take long,
-- and so which workers take it. `priority`: see `domain.job.Priority`. `fencing_token`: drawn at each claim from
-- one sequence, so that it rises over all kinds; a write that carries another is refused. `lease_until`: of one
-- that runs; not indexed, so that a renewal touches no index. `causes`: what asked for it, {"reason", "actor",
-- "event", "request", "at"}, oldest first. A bounded list, of which the first stays; `cause_count` counts all. A
-- periodic observation is nobody's request and has none. `absorbed`: ids of those that waited when this one was put
-- back, and are part of it since; whoever was given one of them finds this.
CREATE SEQUENCE fencing_token;
CREATE TABLE job (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL,
    subject       text NOT NULL,
    lock          text NOT NULL,
    lane          text NOT NULL CHECK (lane IN ('quick', 'long')),
    priority      smallint NOT NULL CHECK (priority BETWEEN 0 AND 3),
    state         text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running')),
    due_at        timestamptz NOT NULL DEFAULT now(),
    attempts      integer NOT NULL DEFAULT 0,
    fencing_token bigint,
    holder        text,
    lease_until   timestamptz,
    causes        jsonb NOT NULL DEFAULT '[]',
    cause_count   integer NOT NULL DEFAULT 0,
    absorbed      bigint[] NOT NULL DEFAULT '{}',
    error         text,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at    timestamptz,
    CHECK ((state = 'running') = (holder IS NOT NULL)),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK (state = 'waiting' OR fencing_token IS NOT NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0.0, autovacuum_analyze_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX job_one_waiting ON job (kind, subject) WHERE state = 'waiting';
CREATE UNIQUE INDEX job_one_running ON job (lock) WHERE state = 'running';
CREATE INDEX job_due ON job (lane, priority, due_at, id) WHERE state = 'waiting';
CREATE INDEX job_subject ON job (subject);
CREATE INDEX job_absorbed ON job USING gin (absorbed) WHERE absorbed <> '{}';
CREATE INDEX job_holder ON job (holder) WHERE state = 'running';

-- Jobs of tenants and clusters that have ended, for people: of all others what they were about says it.
CREATE TABLE job_history (
    id            bigint PRIMARY KEY,
    kind          text NOT NULL,
    subject       text NOT NULL,
    state         text NOT NULL CHECK (state IN ('done', 'parked')),
    attempts      integer NOT NULL,
    fencing_token bigint NOT NULL,
    causes        jsonb NOT NULL,
    cause_count   integer NOT NULL,
    absorbed      bigint[] NOT NULL DEFAULT '{}',
    error         text,
    runbook       text,
    created_at    timestamptz NOT NULL,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX job_history_subject ON job_history (subject, id DESC);
CREATE INDEX job_history_absorbed ON job_history USING gin (absorbed) WHERE absorbed <> '{}';
CREATE INDEX job_history_parked ON job_history (id) WHERE state = 'parked';
CREATE INDEX job_history_done ON job_history (finished_at) WHERE state = 'done';
CREATE INDEX job_history_observed ON job_history (finished_at) WHERE state = 'done' AND cause_count = 0;

-- What people see of the jobs that converge a tenant or a cluster. The condition stands outside: within the
-- first branch it would keep the planner from the branch's indexes and from passing it over by its CHECK.
CREATE VIEW operation AS SELECT *,
    coalesce(causes->0->>'reason', 'periodic observation') AS reason,
    coalesce(causes->0->>'actor', 'clock') AS actor FROM (
    SELECT id, kind, subject AS resource_id, state, due_at AS next_attempt_at, attempts, fencing_token,
           causes, cause_count, absorbed, error, NULL AS runbook, created_at, started_at, NULL AS finished_at
      FROM job
     UNION ALL
    SELECT id, kind, subject, state, finished_at, attempts, fencing_token,
           causes, cause_count, absorbed, error, runbook, created_at, started_at, finished_at
      FROM job_history
) AS every_job WHERE kind IN ('tenant', 'cluster');

-- An operator's word, until `ends_at` or until somebody lifts it. A freeze: no job of what it covers is claimed;
-- `scope`: "all", "terraform", or a cluster's or a tenant's id; `interrupts`: what runs is cut off, too. The other
-- kinds are over what billing says of one tenant; `plan`: the one that it is given.
CREATE TABLE hold (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('freeze', 'suspend', 'serve', 'plan')),
    scope      text NOT NULL CHECK (scope ~ '^(all|terraform|[ct]-[a-z2-7]{12})$'),
    plan       text,
    actor      text NOT NULL,
    reason     text NOT NULL,
    interrupts boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ends_at    timestamptz NOT NULL,
    lifted_at  timestamptz,
    lifted_by  text,
    CHECK ((kind = 'plan') = (plan IS NOT NULL)),
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);
CREATE UNIQUE INDEX hold_once ON hold (scope, kind) WHERE lifted_at IS NULL;

-- A process of the fleet that holds jobs, and when it last said that it lives.
CREATE TABLE process (
    id           text PRIMARY KEY,
    lanes        text[] NOT NULL,
    version      text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE step (
    operation_id bigint NOT NULL,
    seq          integer NOT NULL,
    name         text NOT NULL,
    target       text NOT NULL DEFAULT '',
    reason       text NOT NULL,
    state        text NOT NULL CHECK (state IN ('running', 'done', 'failed', 'waiting', 'abandoned')),
    error        text,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    PRIMARY KEY (operation_id, seq)
);

-- Progress inside a long step: one row for each resource event of a Terraform run.
CREATE TABLE step_event (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation_id bigint NOT NULL,
    seq          integer NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text NOT NULL,
    address      text NOT NULL,
    action       text NOT NULL,
    seconds      double precision,
    message      text NOT NULL,
    FOREIGN KEY (operation_id, seq) REFERENCES step
);
CREATE INDEX step_event_step ON step_event (operation_id, seq, id);

-- What Terraform last confirmed for a workspace.
CREATE TABLE stack (
    workspace text PRIMARY KEY,
    digest    text NOT NULL,
    outputs   jsonb NOT NULL
);

-- A Terraform run is recorded before it starts, so that the lock it may leave behind is known as ours.
CREATE TABLE terraform_run (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace    text NOT NULL,
    operation_id bigint NOT NULL,
    who          text NOT NULL,
    lock_id      text,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at     timestamptz
);
CREATE INDEX terraform_run_open ON terraform_run (workspace) WHERE ended_at IS NULL;
CREATE INDEX terraform_run_operation ON terraform_run (operation_id);

-- What an operation would do. `transfer` ({"to"}, {"at"} or {"snapshot"}): the one that is asked about; NULL for an
-- ordinary operation.
CREATE TABLE preview (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       text NOT NULL REFERENCES tenant,
    actor           text NOT NULL,
    transfer        jsonb,
    state           text NOT NULL CHECK (state IN ('waiting', 'done', 'failed')),
    steps           jsonb,
    changes         jsonb,
    error           text,
    requested_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz
);
CREATE INDEX preview_ended ON preview (finished_at) WHERE state <> 'waiting';
CREATE INDEX preview_tenant ON preview (tenant_id);

-- Who changed what. Sealed in batches: `place` is a row's in the chain, and its hash covers the row before it, so
-- an edit or a removal shows. Whoever writes a row waits for no other.
CREATE TABLE audit (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor    text NOT NULL,
    action   text NOT NULL,
    resource text NOT NULL,
    detail   jsonb NOT NULL,
    place    bigint UNIQUE,
    hash     bytea,
    CHECK ((place IS NULL) = (hash IS NULL))
);
CREATE INDEX audit_unsealed ON audit (seq) WHERE place IS NULL;

-- Notifications to the operator's systems, written in the transaction that makes them true. `tenant_id`: NULL for what
-- is about a contract that is no tenant's yet, or about billing as a whole. `once`: the same
-- thing is notified once. `seq` numbers them for paging. `tries`: deliveries that
-- were begun.
CREATE TABLE notification (
    id              text PRIMARY KEY CHECK (id ~ '^msg_[0-9a-f]{32}$'),
    seq             bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tenant_id       text REFERENCES tenant,
    kind            text NOT NULL,
    once            text NOT NULL,
    payload         jsonb NOT NULL,
    state           text NOT NULL DEFAULT 'waiting'
                    CHECK (state IN ('waiting', 'delivered', 'dead', 'no_destination')),
    tries           integer NOT NULL DEFAULT 0,
    next_try_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    answer          text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at     timestamptz,
    CONSTRAINT notification_once UNIQUE NULLS NOT DISTINCT (tenant_id, kind, once)
);
CREATE INDEX notification_waiting ON notification (next_try_at, seq) WHERE state = 'waiting';
CREATE INDEX notification_ended ON notification (finished_at) WHERE state <> 'waiting';

-- ------------------------------------------------------------------------------ transfers, purges

-- Rows that go from a `source` placement, a restored cluster or (`clone`) another tenant to a `target` placement.
-- `destination`: "dedicated", "shared" or a cluster's id; NULL where the plan says it. `by_hand`: a person asked;
-- else a change of plan did. `declined`: a person aborted it. `compared`: each table with its rows and whether they
-- were the same. `cut_at`: since then the target is the one in use. Of a restore: `at` or `snapshot`, what was asked
-- for; `lived_on`, the placement that the tenant lived on then; `restored_cluster`, which is made
-- with those rows for it alone and goes once they are copied; `release`, what the tenant's database on it has.
CREATE TABLE transfer (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id        text NOT NULL REFERENCES tenant,
    kind             text NOT NULL CHECK (kind IN ('move', 'restore', 'clone')),
    destination      text,
    plan             text NOT NULL,
    by_hand          boolean NOT NULL,
    declined         boolean NOT NULL DEFAULT false,
    source           text REFERENCES placement,
    target           text REFERENCES placement,
    at               timestamptz,
    snapshot         text,
    lived_on         text REFERENCES placement,
    restored_cluster text UNIQUE REFERENCES cluster,
    release          text,
    phase            text NOT NULL DEFAULT 'preparing'
                     CHECK (phase IN ('preparing', 'copying', 'following', 'cut', 'reversible', 'confirmed', 'aborted')),
    reason           text NOT NULL,
    actor            text NOT NULL,
    copied_rows      bigint,
    copied_bytes     bigint,
    pause_seconds    double precision,
    compared         jsonb,
    checked          text CHECK (checked IN ('before', 'after')),
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    opened_at        timestamptz,
    copied_at        timestamptz,
    paused_at        timestamptz,
    cut_at           timestamptz,
    cleared_at       timestamptz,
    keep_until       timestamptz,
    finished_at      timestamptz,
    CHECK ((source IS NULL) = (kind = 'clone')),
    CHECK ((destination IS NULL) = (kind = 'clone')),
    CHECK (num_nonnulls(at, snapshot) = CASE kind WHEN 'restore' THEN 1 ELSE 0 END),
    CHECK ((lived_on IS NULL) = (restored_cluster IS NULL)),
    CHECK (finished_at IS NULL OR phase IN ('confirmed', 'aborted'))
);
CREATE UNIQUE INDEX transfer_one_open ON transfer (tenant_id) WHERE finished_at IS NULL;
CREATE INDEX transfer_tenant ON transfer (tenant_id, id DESC);

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
CREATE INDEX purge_tenant ON purge (tenant_id);

-- What is kept of a tenant outside its database: a dump in the bucket or a snapshot of its cluster. Its name
-- is recorded before it is made. Those of a purge are the engine's; the others are exports.
CREATE TABLE data_copy (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       text NOT NULL REFERENCES tenant,
    cluster_id      text NOT NULL REFERENCES cluster,
    purge_id        bigint CONSTRAINT data_copy_of_purge UNIQUE REFERENCES purge,
    kind            text NOT NULL CHECK (kind IN ('dump', 'snapshot')),
    name            text NOT NULL UNIQUE,
    state           text NOT NULL DEFAULT 'making' CHECK (state IN ('making', 'kept', 'failed', 'deleted')),
    manifest        jsonb,
    keep_days       integer NOT NULL CHECK (keep_days >= 1),
    actor           text NOT NULL,
    error           text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    verified_at     timestamptz,
    kept_until      timestamptz,
    deleted_at      timestamptz,
    CHECK (state <> 'kept' OR (verified_at IS NOT NULL AND kept_until IS NOT NULL AND manifest IS NOT NULL))
);
CREATE INDEX data_copy_tenant ON data_copy (tenant_id, id DESC);
CREATE INDEX data_copy_cluster ON data_copy (cluster_id);
CREATE INDEX data_copy_kept ON data_copy (cluster_id) WHERE kind = 'snapshot' AND state IN ('making', 'kept');

-- ----------------------------------------------------------- releases of the tenants' schema, rollouts

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

-- One tenant of a rollout, as people see it; its job is what is waited for, held and tried again.
-- `was_closed`: it was skipped because its tenant had closed, and is taken along after all if that comes back
-- before the rollout ends; one that a person skipped is not.
CREATE TABLE rollout_member (
    rollout_id      bigint NOT NULL REFERENCES rollout,
    tenant_id       text NOT NULL REFERENCES tenant,
    wave            integer NOT NULL,
    cluster_id      text NOT NULL,
    from_release    text,
    state           text NOT NULL DEFAULT 'pending'
                    CHECK (state IN ('pending', 'running', 'done', 'failed', 'skipped', 'stale')),
    was_closed      boolean NOT NULL DEFAULT false,
    file            text,
    statement       text,
    error           text,
    seconds         double precision,
    started_at      timestamptz,
    finished_at     timestamptz,
    PRIMARY KEY (rollout_id, tenant_id)
);
-- Who may be started next is asked for at every turn of every worker. In the order in which they are started;
-- the cluster is in the index, so that those of a busy cluster are passed over without a look at the table.
CREATE INDEX rollout_member_pending ON rollout_member (rollout_id, wave, tenant_id)
    INCLUDE (cluster_id) WHERE state = 'pending';
CREATE INDEX rollout_member_running ON rollout_member (rollout_id, wave) WHERE state = 'running';
CREATE INDEX rollout_member_tenant ON rollout_member (tenant_id, rollout_id DESC);

-- A cluster as it was before a rollout touched the tenants on it whose plan asks for that. The name is
-- recorded before the snapshot is begun. `number` counts those of one cluster in one rollout: another one is
-- wanted where the last one failed, or for a tenant that came to the cluster after it.
CREATE TABLE rollout_snapshot (
    rollout_id          bigint NOT NULL REFERENCES rollout,
    cluster_id          text NOT NULL REFERENCES cluster,
    number              integer NOT NULL CHECK (number >= 1),
    name                text NOT NULL UNIQUE,
    state               text NOT NULL DEFAULT 'making'
                        CHECK (state IN ('making', 'available', 'failed', 'deleted')),
    error               text,
    requested_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    available_at        timestamptz,
    deleted_at          timestamptz,
    PRIMARY KEY (rollout_id, cluster_id, number),
    CHECK ((available_at IS NOT NULL) OR state <> 'available'),
    CHECK ((deleted_at IS NOT NULL) = (state = 'deleted')),
    CHECK ((error IS NOT NULL) OR state <> 'failed')
);
CREATE UNIQUE INDEX rollout_snapshot_one_making ON rollout_snapshot (rollout_id, cluster_id)
    WHERE state = 'making';
CREATE INDEX rollout_snapshot_cluster ON rollout_snapshot (cluster_id);

-- Copies of the most divergent tenants, migrated to see how long it takes and what it locks.
CREATE TABLE rehearsal (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release     text NOT NULL REFERENCES release,
    copies      integer NOT NULL,
    actor       text NOT NULL,
    state       text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    results     jsonb NOT NULL DEFAULT '[]',
    error       text,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
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
