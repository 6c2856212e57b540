-- What must not be purged, and why. No id of a principal is used twice, so a hold outlives its account; address: whose it was.
CREATE TABLE hold(
    account_id INTEGER NOT NULL, reason TEXT NOT NULL, address TEXT NOT NULL, created_ms INTEGER NOT NULL,
    PRIMARY KEY(account_id, reason)) STRICT, WITHOUT ROWID;
