-- The registry: the control plane's own truth. Everything else (Redis, queues, caches) may be lost.

CREATE SEQUENCE epoch;

-- The inbox: one row for each billing event that was answered 2xx, its body just as it was signed.
CREATE TABLE stripe_event (
    id              text PRIMARY KEY,
    type            text NOT NULL,
    api_version     text,
    livemode        boolean NOT NULL,
    created_at      timestamptz NOT NULL,
    body            bytea NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    state           text NOT NULL CHECK (state IN ('received', 'applied', 'ignored', 'parked')),
    reason          text,
    subscription_id text,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    handled_at      timestamptz
);
CREATE INDEX stripe_event_due ON stripe_event (next_attempt_at) WHERE state = 'received';
CREATE INDEX stripe_event_parked ON stripe_event (received_at DESC, id DESC) WHERE state = 'parked';
CREATE INDEX stripe_event_newest ON stripe_event (received_at DESC, id DESC);

CREATE TABLE tenant (
    id                 text PRIMARY KEY CHECK (id ~ '^t-[a-z2-7]{12}$'),
    slug               text NOT NULL CONSTRAINT tenant_slug_taken UNIQUE,
    display_name       text NOT NULL,
    customer_id        text NOT NULL,
    spec            jsonb NOT NULL,
    generation         bigint NOT NULL DEFAULT 1,
    observed_generation bigint NOT NULL DEFAULT 0,
    status           jsonb,
    observed_at        timestamptz,
    access_proof              text,
    needs_attention    text,
    runbook            text,
    paid_at            timestamptz,
    started_at         timestamptz,
    ready_at           timestamptz,
    next_observation_at       timestamptz,
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((needs_attention IS NULL) = (runbook IS NULL))
);
CREATE INDEX tenant_next_look ON tenant (next_observation_at) WHERE next_observation_at IS NOT NULL;
CREATE INDEX tenant_customer ON tenant (customer_id);

-- What the billing system says. `revision` guards the fetch: a writer whose object was fetched
-- before somebody else wrote must fetch again, so an older object never overwrites a newer one.
CREATE TABLE subscription (
    id          text PRIMARY KEY,
    customer_id text,
    status      text,
    outcome     text NOT NULL CHECK (outcome IN ('new', 'applied', 'waiting', 'ignored', 'parked')),
    reason      text,
    tenant_id   text CONSTRAINT subscription_tenant UNIQUE REFERENCES tenant,
    revision    bigint NOT NULL DEFAULT 0,
    first_event_at timestamptz NOT NULL,
    fetched_at  timestamptz
);
CREATE INDEX subscription_oldest ON subscription (first_event_at, id);

CREATE TABLE cluster (
    id                 text PRIMARY KEY CHECK (id ~ '^c-[a-z2-7]{12}$'),
    cluster_class                text NOT NULL,
    slots              integer NOT NULL CHECK (slots >= 1),
    spec            jsonb NOT NULL,
    generation         bigint NOT NULL DEFAULT 1,
    observed_generation bigint NOT NULL DEFAULT 0,
    status           jsonb,
    observed_at        timestamptz,
    hardened_at        timestamptz,
    endpoint           jsonb,
    needs_attention    text,
    runbook            text,
    ready_at           timestamptz,
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((needs_attention IS NULL) = (runbook IS NULL))
);
CREATE INDEX cluster_class_created ON cluster (cluster_class, created_at);

CREATE TABLE placement (
    tenant_id  text NOT NULL REFERENCES tenant,
    number     integer NOT NULL CHECK (number >= 1),
    cluster_id text NOT NULL REFERENCES cluster,
    state      text NOT NULL CHECK (state IN ('current', 'released')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, number)
);
CREATE UNIQUE INDEX placement_current ON placement (tenant_id) WHERE state = 'current';
CREATE INDEX placement_cluster ON placement (cluster_id) WHERE state = 'current';

-- A login of a placement and the version of its secret that its password was last set from.
CREATE TABLE credential (
    tenant_id     text NOT NULL,
    number        integer NOT NULL,
    login         text NOT NULL CHECK (login IN ('app', 'migrator')),
    username      text NOT NULL,
    password_from text,
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, number, login),
    FOREIGN KEY (tenant_id, number) REFERENCES placement
);

-- A custom domain. The primary key is what keeps one domain from routing to two tenants.
CREATE TABLE hostname (
    host        text CONSTRAINT hostname_taken PRIMARY KEY,
    tenant_id   text NOT NULL REFERENCES tenant,
    provider_id text,
    status      text NOT NULL DEFAULT 'new',
    ssl_status  text NOT NULL DEFAULT 'new',
    records     jsonb NOT NULL DEFAULT '[]',
    errors      jsonb NOT NULL DEFAULT '[]',
    refused     text,
    next_poll_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX hostname_tenant ON hostname (tenant_id);

-- What each host should serve, and the epoch under which it was decided. The cache is filled from here.
CREATE TABLE route (
    host       text CONSTRAINT route_taken PRIMARY KEY,
    tenant_id  text NOT NULL REFERENCES tenant,
    payload    jsonb NOT NULL,
    epoch      bigint NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX route_tenant ON route (tenant_id);

-- What Terraform last confirmed for a workspace.
CREATE TABLE stack (
    workspace  text PRIMARY KEY,
    digest     text NOT NULL,
    outputs    jsonb NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The right to converge one resource. `fencing_token` only rises; a write that carries a lower one is refused.
CREATE TABLE lease (
    kind        text NOT NULL CHECK (kind IN ('tenant', 'cluster')),
    resource_id text NOT NULL,
    fencing_token       bigint NOT NULL DEFAULT 0,
    holder      text,
    until       timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (kind, resource_id)
);

CREATE TABLE operation (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text NOT NULL,
    resource_id     text NOT NULL,
    reason          text NOT NULL,
    actor           text NOT NULL,
    state           text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'parked', 'superseded')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    fencing_token           bigint,
    error           text,
    runbook         text,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at      timestamptz,
    finished_at     timestamptz,
    FOREIGN KEY (kind, resource_id) REFERENCES lease
);
CREATE UNIQUE INDEX operation_one_running ON operation (kind, resource_id) WHERE state = 'running';
CREATE UNIQUE INDEX operation_one_waiting ON operation (kind, resource_id) WHERE state = 'waiting';
CREATE INDEX operation_due ON operation (next_attempt_at) WHERE state = 'waiting';
CREATE INDEX operation_resource ON operation (kind, resource_id, id DESC);

CREATE TABLE step (
    operation_id bigint NOT NULL REFERENCES operation,
    seq          integer NOT NULL,
    name         text NOT NULL,
    target       text NOT NULL DEFAULT '',
    reason       text NOT NULL,
    fencing_token        bigint NOT NULL,
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

-- A Terraform run is recorded before it starts, so that the lock it may leave behind is known as ours.
CREATE TABLE terraform_run (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace    text NOT NULL,
    operation_id bigint NOT NULL REFERENCES operation,
    fencing_token        bigint NOT NULL,
    who          text NOT NULL,
    lock_id      text,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at     timestamptz
);
CREATE INDEX terraform_run_open ON terraform_run (workspace) WHERE ended_at IS NULL;

-- Who changed what. Each row's hash covers the row before it, so an edit or a removal shows.
CREATE TABLE audit (
    seq      bigint PRIMARY KEY,
    at       timestamptz NOT NULL,
    actor    text NOT NULL,
    action   text NOT NULL,
    resource text NOT NULL,
    detail   jsonb NOT NULL,
    hash     bytea NOT NULL
);
CREATE INDEX audit_resource ON audit (resource, seq DESC);

-- Support asked what a pass would do. Read-only work: it needs no lease and no place in the queue.
CREATE TABLE preview (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id    text NOT NULL REFERENCES tenant,
    actor        text NOT NULL,
    state        text NOT NULL CHECK (state IN ('waiting', 'done', 'failed')),
    attempts     integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    steps        jsonb,
    changes      jsonb,
    error        text,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz
);
CREATE INDEX preview_due ON preview (next_attempt_at) WHERE state = 'waiting';
