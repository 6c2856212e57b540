"""SMTP and LMTP without I/O: a server core, a client core, and the grammar they share."""
