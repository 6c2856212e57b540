"""What every test shares: the Hypothesis profiles, and one line naming the tests that need root."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.register_profile("fuzz", parent=settings.get_profile("dev"), max_examples=20_000)
settings.load_profile(os.environ.get("FUMIBAKO_PROFILE", "ci" if os.environ.get("CI") else "dev"))

NEEDS_ROOT = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--long: for tests that have a longer form than `make test` has time for."""
    parser.addoption("--long", action="store_true", help="the long form of tests that have one")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time."""
    return bool(request.config.getoption("--long"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips the tests marked root when an ordinary user runs them."""
    if os.geteuid() == 0:
        return
    held = [item for item in items if item.get_closest_marker("root")]
    for item in held:
        item.add_marker(pytest.mark.skip(reason="needs root"))
    config.stash[NEEDS_ROOT] = sorted({item.nodeid.partition("::")[0] for item in held})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names, in one line, the files whose tests were left out for want of root."""
    if held := config.stash.get(NEEDS_ROOT, []):
        terminalreporter.write_line(f"need root, not run: {' '.join(held)}")
