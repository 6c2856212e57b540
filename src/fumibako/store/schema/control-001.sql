-- Who lives here: read at every login and RCPT.
CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE domain(
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id INTEGER NOT NULL DEFAULT 0,
    name TEXT NOT NULL UNIQUE, modseq INTEGER NOT NULL) STRICT;
CREATE TABLE shard(id INTEGER PRIMARY KEY, directory TEXT NOT NULL UNIQUE, opened_ms INTEGER NOT NULL) STRICT;
CREATE TABLE principal(
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, domain_id INTEGER NOT NULL,
    address TEXT NOT NULL, address_key TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
    quota_limit_octets INTEGER NOT NULL, shard INTEGER NOT NULL, modseq INTEGER NOT NULL, display_name TEXT NOT NULL,
    argon2id TEXT NOT NULL, scram_salt BLOB NOT NULL, scram_iterations INTEGER NOT NULL,
    scram_stored_key BLOB NOT NULL, scram_server_key BLOB NOT NULL) STRICT;
CREATE INDEX principal_domain ON principal(domain_id);
CREATE INDEX principal_shard ON principal(shard);
CREATE TABLE alias(
    address_key TEXT NOT NULL, target TEXT NOT NULL, domain_id INTEGER NOT NULL,
    PRIMARY KEY(address_key, target)) STRICT, WITHOUT ROWID;
CREATE INDEX alias_domain ON alias(domain_id);
CREATE TABLE setting(
    scope TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY(scope, key)) STRICT, WITHOUT ROWID;
CREATE TABLE secret(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counter VALUES('modseq', 0);
