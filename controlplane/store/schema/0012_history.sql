-- Work that is due, history that is over and whatever a foreign key leads to are found by an index, so that
-- none of it costs more the larger the fleet is.

-- A row can only be deleted once every table that may refer to it was searched.
CREATE INDEX terraform_run_operation ON terraform_run (operation_id);
CREATE INDEX preview_tenant ON preview (tenant_id);
CREATE INDEX purge_tenant ON purge (tenant_id);
CREATE INDEX data_copy_cluster ON data_copy (cluster_id);
CREATE INDEX rollout_snapshot_cluster ON rollout_snapshot (cluster_id);
CREATE INDEX tenant_clone_of ON tenant (clone_of);

-- What is old enough to be pruned, the oldest first.
CREATE INDEX operation_ended ON operation (finished_at) WHERE state IN ('done', 'superseded');
CREATE INDEX operation_looked ON operation (finished_at)
    WHERE state IN ('done', 'superseded') AND reason = 'periodic observation';
CREATE INDEX stripe_event_body ON stripe_event (handled_at)
    WHERE state IN ('applied', 'ignored') AND length(body) > 0;
CREATE INDEX notification_ended ON notification (finished_at) WHERE state <> 'waiting';
CREATE INDEX preview_ended ON preview (finished_at) WHERE state <> 'waiting';

-- What waits for a person.
CREATE INDEX operation_parked ON operation (id) WHERE state = 'parked';
CREATE INDEX tenant_attention ON tenant (id) WHERE needs_attention IS NOT NULL;
CREATE INDEX cluster_attention ON cluster (id) WHERE needs_attention IS NOT NULL;

-- When each periodic duty of the workers was last begun, by whichever process; N workers that ask do it once.
CREATE TABLE duty (
    name     text PRIMARY KEY,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
