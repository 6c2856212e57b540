-- What waits to be delivered. A lease is due_ms := now + lease; a message goes when no recipient is open.
CREATE TABLE q_message(
    id INTEGER PRIMARY KEY AUTOINCREMENT, trace_id BLOB NOT NULL UNIQUE, envelope BLOB NOT NULL, prefix BLOB NOT NULL,
    blob_id INTEGER NOT NULL, size_octets INTEGER NOT NULL, created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL) STRICT;
CREATE TABLE q_recipient(
    id INTEGER PRIMARY KEY AUTOINCREMENT, message_id INTEGER NOT NULL, forward_path TEXT NOT NULL, domain TEXT NOT NULL,
    state TEXT NOT NULL, due_ms INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, notify INTEGER NOT NULL,
    original_recipient TEXT NOT NULL, last BLOB, crashes INTEGER NOT NULL DEFAULT 0,
    delay_warned INTEGER NOT NULL DEFAULT 0, leased INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX q_recipient_message ON q_recipient(message_id);
CREATE INDEX q_recipient_due ON q_recipient((attempts > 0), due_ms) WHERE state = 'queued';
-- trace_ids of finished messages: a hand-over that is repeated after a crash finds its key here.
CREATE TABLE q_finished(trace_id BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
-- id = segment << 32 | offset of the record at birth: never given twice, because segment numbers are not.
CREATE TABLE blob(
    id INTEGER PRIMARY KEY, segment_id INTEGER NOT NULL, offset INTEGER NOT NULL,
    size_octets INTEGER NOT NULL, refs INTEGER NOT NULL) STRICT;
CREATE TABLE segment(
    id INTEGER PRIMARY KEY AUTOINCREMENT, own INTEGER NOT NULL, sealed INTEGER NOT NULL, created_ms INTEGER NOT NULL) STRICT;
