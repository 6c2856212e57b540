"""Wire formats as pure functions and sans-I/O cores: bytes to values and back.

Specification: one module or package per protocol; each names its own RFCs.
Contract: nothing here waits, reads a clock, draws a random number or touches a file.
Failure: a peer's mistake is an event or `fumibako.proto.reader.ProtocolError`; everything else is a bug.
"""
