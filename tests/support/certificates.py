"""Certificates for tests, made on the spot."""

from pathlib import Path

from fumibako.net.tls import make_self_signed
from tests.support.clock import START_MS


def write_pair(directory: Path, hostname: str, *names: str, now_ms: int = START_MS) -> tuple[str, str]:
    """Writes hostname.pem and hostname.key; returns their paths."""
    certificate, key = make_self_signed(hostname, names, now_ms)
    paths = directory / f"{hostname}.pem", directory / f"{hostname}.key"
    for path, octets in zip(paths, (certificate, key), strict=True):
        path.write_bytes(octets)
    return str(paths[0]), str(paths[1])
