-- A constant default is kept in the catalogue (since PostgreSQL 11): no row is rewritten.
ALTER TABLE note ADD COLUMN stars integer NOT NULL DEFAULT 0;
