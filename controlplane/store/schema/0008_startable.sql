-- Who may be started next is asked for at every turn of every worker, so it must not cost more the more wait.
-- In the order in which they are started; the cluster is in the index, so that those of a cluster that is
-- busy are passed over without a look at the table.
CREATE INDEX rollout_target_pending ON rollout_target (rollout_id, wave, next_attempt_at, tenant_id)
    INCLUDE (cluster_id) WHERE state = 'pending';
CREATE INDEX rollout_target_running ON rollout_target (rollout_id, wave) WHERE state = 'running';
DROP INDEX rollout_target_open;
