"""Real processes: one server and one little internet for each run of system tests, both made when first asked for."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.internet import Internet, little_internet
from tests.support.server import AS_ROOT, LiveServer, Place, claimed_network, live_server, needs


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    """The first three numbers of our own /24 of loopback."""
    with claimed_network() as found:
        yield found


@pytest.fixture(scope="session")
def house(network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """mail.example.jp with alice, bob and carol, for tests that leave it as they found it but for mail."""
    directory = tmp_path_factory.mktemp("house") / "data"
    with live_server(directory, Place(f"{network}.1"), accounts=("alice", "bob", "carol")) as server:
        yield server


@pytest.fixture(scope="session")
def internet() -> Iterator[Internet]:
    """DNS, and a neighbour domain."""
    if not AS_ROOT:
        pytest.skip("needs root")
    needs("nsd", "unbound", "postfix", "dovecot")
    with little_internet() as found:
        yield found


@pytest.fixture
def place(network: str) -> Place:
    """An address for a server of the test's own."""
    return Place(f"{network}.9")


@pytest.fixture
def fresh(place: Place) -> Iterator[LiveServer]:
    """A data directory that is not made yet. A server that a failed test leaves running is killed.

    Not in tmp_path: another run of pytest that begins meanwhile takes the rights of other users away from what lies above it.
    """
    with TemporaryDirectory(prefix="fumibako-test-", ignore_cleanup_errors=True) as above:
        server = LiveServer(Path(above) / "data", place)
        yield server
        if server.process is not None:
            server.kill()


@pytest.fixture(params=["up", "down"])
def server(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> Iterator[LiveServer]:
    """example.jp with alice and bob; the server runs, or doesn't."""
    if request.param == "up":
        with live_server(tmp_path / "data", place) as found:
            yield found
        return
    found = LiveServer(tmp_path / "data", place)
    found.init()
    found.populate("example.jp", "alice", "bob")
    yield found


@pytest.fixture
def many_files() -> Iterator[None]:
    """A test may have as many peers as the hard limit on open files allows; a login's soft one is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
