-- replaced_ms: since when no blob lives in the segment (0: one does); its file stays for an hour after that.
ALTER TABLE segment ADD COLUMN replaced_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX segment_replaced ON segment(replaced_ms) WHERE replaced_ms > 0;
-- Only what compaction moved: with the range of ids born in a segment it finds all that lives there, and a delivery doesn't pay.
CREATE INDEX blob_moved ON blob(segment_id) WHERE segment_id <> id >> 32;
