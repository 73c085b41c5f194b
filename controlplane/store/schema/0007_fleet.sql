-- A cluster as it was before a rollout touched the tenants on it whose plan asks for that. The name is
-- recorded before the snapshot is begun. `number` counts those of one cluster in one rollout: another one is
-- wanted where the last one failed, or for a tenant that came to the cluster after it.
CREATE TABLE rollout_snapshot (
    rollout_id   bigint NOT NULL REFERENCES rollout,
    cluster_id   text NOT NULL REFERENCES cluster,
    number       integer NOT NULL CHECK (number >= 1),
    name         text NOT NULL UNIQUE,
    state        text NOT NULL DEFAULT 'making' CHECK (state IN ('making', 'available', 'failed', 'deleted')),
    error        text,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_observation_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    available_at timestamptz,
    deleted_at   timestamptz,
    PRIMARY KEY (rollout_id, cluster_id, number),
    CHECK ((available_at IS NOT NULL) OR state <> 'available'),
    CHECK ((deleted_at IS NOT NULL) = (state = 'deleted')),
    CHECK ((error IS NOT NULL) OR state <> 'failed')
);
CREATE UNIQUE INDEX rollout_snapshot_one_making ON rollout_snapshot (rollout_id, cluster_id) WHERE state = 'making';
CREATE INDEX rollout_snapshot_due ON rollout_snapshot (next_observation_at) WHERE state <> 'deleted';
