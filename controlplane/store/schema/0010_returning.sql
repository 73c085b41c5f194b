-- A target that was skipped because its tenant had closed is taken along after all if it comes back before
-- the rollout ends; one that a person skipped is not.
ALTER TABLE rollout_target ADD COLUMN was_closed boolean NOT NULL DEFAULT false;
