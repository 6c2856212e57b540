"""Names for the integers and octets that identify things, so that mypy keeps them apart.

Contract: integer ids are never reused (DESIGN §3); a TraceId is 16 random octets; a Uid is 1..2**32-1.
"""

from typing import NewType

DomainId = NewType("DomainId", int)
AccountId = NewType("AccountId", int)       # equals the principal id in the directory
MailboxId = NewType("MailboxId", int)       # unique within its account
EmailId = NewType("EmailId", int)           # unique within its account; the row, not the header field
Uid = NewType("Uid", int)
ModSeq = NewType("ModSeq", int)             # one counter an account
TraceId = NewType("TraceId", bytes)         # follows one accepted message through the whole house
QueueId = NewType("QueueId", int)
