-- A clone: a tenant that nobody pays for, made with the rows that another one had at one moment. It is not
-- served before `cloned_at`.
ALTER TABLE tenant
    ADD COLUMN clone_of    text REFERENCES tenant,
    ADD COLUMN cloned_at   timestamptz,
    ADD COLUMN cloned_rows bigint,
    ADD CONSTRAINT tenant_cloned_from_something CHECK (cloned_at IS NULL OR clone_of IS NOT NULL);
