"""A server that an ordinary user runs, also where the clone and its Python lie below /root."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fumibako
from tests.support.server import LiveServer


def handed_to_nobody(server: LiveServer) -> int:
    """A new data directory that belongs to the user nobody, who can get there; the user's number."""
    owner = pwd.getpwnam("nobody")
    server.init()
    server.directory.parent.chmod(0o711)
    for path in (server.directory, *server.directory.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return owner.pw_uid


def everybody_can_read(*files: str) -> bool:
    return all(parent.stat().st_mode & 0o001 for file in files for parent in Path(file).parents)


@contextmanager
def _project_for_everybody(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a program of ours imports is found where every user can read it, also when the clone lies below /root."""
    project = str(Path(fumibako.__file__).parents[2])
    if everybody_can_read(fumibako.__file__):
        yield
        return
    place.mkdir()
    subprocess.run(["mount", "--bind", project, place], check=True)
    monkeypatch.setattr(sys, "path", [one.replace(project, str(place), 1) for one in sys.path])
    try:
        yield
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def readable_program(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, the server's program can be read by every user; skips where there is no Python that can."""
    if not everybody_can_read(os.__file__, fumibako.__file__):     # below /root: the system's own is of the same version
        server.program = ("/usr/bin/python3", "-m", "fumibako")
        if subprocess.run(["/usr/bin/python3", "-c", f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"],
                          check=False).returncode:
            pytest.skip("no Python that every user can read")
    with _project_for_everybody(server.directory.parent / "program", monkeypatch):
        yield
