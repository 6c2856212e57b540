"""What the mail system does: receive, submit, queue, deliver, relay, mailboxes, login, zones.

Contract: a policy result is a value; faces turn it into their protocol's words. `StoreUnavailable` is the one failure
    a face must expect from every service: nothing is known to have happened, so the peer gets no success.
"""

from fumibako.store.base import StoreUnavailable

__all__ = ["StoreUnavailable"]
