"""IMAP4rev2 and IMAP4rev1 as values: octets to commands, answers to octets; no input or output."""
