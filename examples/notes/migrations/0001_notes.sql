-- Runs as the owner of the tenant's database, with search_path app. The application's login gets its
-- rights by default privileges, so no GRANT stands here.
CREATE TABLE note (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body text NOT NULL CHECK (length(body) BETWEEN 1 AND 2000),
    created_at timestamptz NOT NULL DEFAULT now()
);
