-- Everything of an account lives in one shard; every table of an account begins with account_id; times are ms UTC.
CREATE TABLE account(
    id INTEGER PRIMARY KEY, modseq INTEGER NOT NULL DEFAULT 0, next_email_id INTEGER NOT NULL DEFAULT 1,
    next_mailbox_id INTEGER NOT NULL DEFAULT 1, used_octets INTEGER NOT NULL DEFAULT 0, messages INTEGER NOT NULL DEFAULT 0,
    uid_validity INTEGER NOT NULL DEFAULT 0,    -- the last one given
    log_floor INTEGER NOT NULL DEFAULT 0,       -- change and vanished know everything after this modseq
    removed_ms INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE keyword(
    account_id INTEGER NOT NULL, bit INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY(account_id, bit)) STRICT, WITHOUT ROWID;
CREATE TABLE mailbox(
    account_id INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL,
    uid_validity INTEGER NOT NULL, uid_next INTEGER NOT NULL, highest_modseq INTEGER NOT NULL,
    total INTEGER NOT NULL, unseen INTEGER NOT NULL, deleted INTEGER NOT NULL, size_octets INTEGER NOT NULL,
    special_use TEXT NOT NULL, no_select INTEGER NOT NULL, PRIMARY KEY(account_id, id)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX mailbox_name ON mailbox(account_id, name);
CREATE TABLE subscription(
    account_id INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY(account_id, name)) STRICT, WITHOUT ROWID;
-- A message of an account: what never changes, and how many entries hold it; without one it waits for purge_after_ms.
CREATE TABLE email(
    account_id INTEGER NOT NULL, id INTEGER NOT NULL, guid BLOB NOT NULL, thread_id INTEGER NOT NULL,
    blob_id INTEGER NOT NULL, size_octets INTEGER NOT NULL, internal_date INTEGER NOT NULL, prefix BLOB NOT NULL,
    entries INTEGER NOT NULL, purge_after_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(account_id, id)) STRICT, WITHOUT ROWID;
CREATE INDEX email_purge ON email(account_id, purge_after_ms) WHERE purge_after_ms > 0;
-- The packed index of a body. By blob, so that a fan-out has it once; a rowid table, so that 4 KB fit a page.
CREATE TABLE email_cache(blob_id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
-- A message in a mailbox: the identity IMAP knows.
CREATE TABLE entry(
    account_id INTEGER NOT NULL, mailbox_id INTEGER NOT NULL, uid INTEGER NOT NULL, email_id INTEGER NOT NULL,
    flags INTEGER NOT NULL, modseq INTEGER NOT NULL, saved_at INTEGER NOT NULL,
    PRIMARY KEY(account_id, mailbox_id, uid)) STRICT, WITHOUT ROWID;
CREATE TABLE change(
    account_id INTEGER NOT NULL, modseq INTEGER NOT NULL, at_ms INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY(account_id, modseq)) STRICT, WITHOUT ROWID;
CREATE TABLE vanished(
    account_id INTEGER NOT NULL, mailbox_id INTEGER NOT NULL, modseq INTEGER NOT NULL,
    uids BLOB NOT NULL, email_ids BLOB NOT NULL, PRIMARY KEY(account_id, mailbox_id, modseq)) STRICT, WITHOUT ROWID;
-- Exactly once: (trace_id, address after alias expansion) and where it went.
CREATE TABLE delivered(
    account_id INTEGER NOT NULL, trace_id BLOB NOT NULL, address TEXT NOT NULL, at_ms INTEGER NOT NULL,
    mailbox_id INTEGER NOT NULL, uid_validity INTEGER NOT NULL, uid INTEGER NOT NULL, email_id INTEGER NOT NULL,
    modseq INTEGER NOT NULL, PRIMARY KEY(account_id, trace_id, address)) STRICT, WITHOUT ROWID;
-- A 63-bit keyed hash of a Message-ID, and the thread it belongs to.
CREATE TABLE thread_ref(
    account_id INTEGER NOT NULL, hash INTEGER NOT NULL, thread_id INTEGER NOT NULL, subject INTEGER NOT NULL,
    PRIMARY KEY(account_id, hash)) STRICT, WITHOUT ROWID;
CREATE TABLE pop3_uidl(
    account_id INTEGER NOT NULL, mailbox_id INTEGER NOT NULL, uid INTEGER NOT NULL, unique_id TEXT NOT NULL,
    PRIMARY KEY(account_id, mailbox_id, uid)) STRICT, WITHOUT ROWID;
-- What a transaction here causes in the queue: moved there under its trace_id, then deleted.
CREATE TABLE outbox(
    id INTEGER PRIMARY KEY AUTOINCREMENT, account_id INTEGER NOT NULL, trace_id BLOB NOT NULL, envelope BLOB NOT NULL,
    prefix BLOB NOT NULL, blob_id INTEGER NOT NULL, created_ms INTEGER NOT NULL) STRICT;
-- id = segment << 32 | offset of the record at birth: never given twice, because segment numbers are not.
CREATE TABLE blob(
    id INTEGER PRIMARY KEY, segment_id INTEGER NOT NULL, offset INTEGER NOT NULL,
    size_octets INTEGER NOT NULL, refs INTEGER NOT NULL) STRICT;
CREATE TABLE segment(
    id INTEGER PRIMARY KEY AUTOINCREMENT, own INTEGER NOT NULL, sealed INTEGER NOT NULL, created_ms INTEGER NOT NULL) STRICT;
