"""The only room that waits on the network: streams, listeners, TLS, name resolution, clock and threads.

Contract: faces and services see `Stream`, `Resolver`, `Clock` and `Offload`; sockets, deadlines and `ssl` stay in here.
Failure: a peer that misbehaves or leaves is a `ConnectionError` or `TimeoutError` (both `OSError`).
"""
