"""POP3 without I/O: a server core and a client core."""
