-- The flags a message had when its last entry was expunged, without \Deleted: `Recover` gives them back. 0 for older ones.
ALTER TABLE email ADD COLUMN expunged_flags INTEGER NOT NULL DEFAULT 0;
