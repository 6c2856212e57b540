"""How Fumibako grows: messages in a mailbox, accounts on a machine, connections that wait, and a small machine for it all."""
