-- Rotation of a placement's logins. `generation` counts the passwords that its secret has named; `requested`
-- is ahead of it while somebody has asked for a new one. `retire_at`: when the login that was in use
-- before loses its password; until then both get in, and connections move over.
ALTER TABLE credential
    ADD COLUMN generation integer NOT NULL DEFAULT 1 CHECK (generation >= 1),
    ADD COLUMN requested     integer NOT NULL DEFAULT 1,
    ADD COLUMN rotated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN retire_at  timestamptz;
UPDATE credential SET rotated_at = changed_at;
