"""Servers to be killed, on an address of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.crash.machine import Machine
from tests.support.server import Place, claimed_network


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    """The first three numbers of our own /24 of loopback."""
    with claimed_network() as found:
        yield found


@pytest.fixture
def machine(network: str, tmp_path: Path) -> Iterator[Machine]:
    """Not made yet; killed at the end in every case."""
    machine = Machine(tmp_path / "data", Place(f"{network}.7"))
    try:
        yield machine
    finally:
        machine.kill_all()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: hundreds of stores are made."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as found:
        yield Path(found)
