"""Preparation of passwords, so that the same password typed on two keyboards is the same octets.

Specification: RFC 8265 (OpaqueString: other spaces become U+0020, then NFC).
Contract: idempotent; printable ASCII is left alone.
Failure: ValueError for an empty password, control characters and unassigned code points.
"""

from precis_i18n import get_profile

_OPAQUE_STRING = get_profile("OpaqueString")


def prepare_password(password: str) -> str:
    """The form to hash, and to compare."""
    if password and password.isascii() and password.isprintable():
        return password
    prepared: str = _OPAQUE_STRING.enforce(password)
    return prepared
