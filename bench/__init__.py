"""Measures Fumibako beside Postfix and Dovecot on one machine, in one run; never imported by the program."""
