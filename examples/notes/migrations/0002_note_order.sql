-- The page shows the newest notes first.
CREATE INDEX note_newest ON note (created_at DESC, id DESC);
