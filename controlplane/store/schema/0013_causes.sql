-- What asked for an operation: {"reason", "actor", "event", "request", "at"}, oldest first. A bounded list,
-- of which the first stays; `cause_count` counts all. A periodic observation is nobody's request and has none.
-- Operations that had ended before this file have the reason alone.
ALTER TABLE operation
    ADD COLUMN causes      jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN cause_count integer NOT NULL DEFAULT 0;
UPDATE operation
   SET cause_count = 1,
       causes = jsonb_build_array(jsonb_build_object(
           'reason', reason, 'actor', actor, 'event', NULL, 'request', NULL,
           'at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')))
 WHERE state IN ('waiting', 'running', 'parked') AND reason <> 'periodic observation';
