"""Internet messages: header, MIME structure, Japanese text, and messages of our own making.

Specification: RFC 5322, RFC 2045, RFC 2046, RFC 2047, RFC 2231, RFC 9051 §7.5.2.
Contract: modules depend downward only: `charset` and `transfer` know nothing of ours; `words`, `params`, `header`
    and `address` read one header field; `index` finds the parts; `structure` renders them; `cache` packs them.
Failure: no reader here raises on any octets; what cannot be understood is kept as it is and served opaque.
"""
