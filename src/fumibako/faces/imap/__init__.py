"""IMAP: what each command does, in modules that bear the names of their parsers in proto/imap."""
