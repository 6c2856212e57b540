"""The log of a disk: records one behind the other, a write's octets behind its record."""

from __future__ import annotations

import struct

RECORD = struct.Struct("<cQQ")      # kind, offset, size
WRITE, DISCARD, FLUSH = b"W", b"D", b"F"
NAME = "disk.img"       # of the one file of power_fuse.py
