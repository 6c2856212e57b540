"""What testssl.sh says of every port that speaks TLS (reliability.md, check 41): `pytest --long`, a minute a port."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.server import LiveServer, needs

pytestmark = [pytest.mark.system, pytest.mark.long]
# What it has to say of the certificate that `init` makes: nobody has signed it, and no DNS knows the test's name.
OF_THE_CERTIFICATE = {"cert_trust", "cert_chain_of_trust", "cert_revocation", "DNS_CAArecord"}
SOUND = {"OK", "INFO", "DEBUG", "WARN"}        # WARN: it could not look


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("port", "starttls"), [("smtp", "smtp"), ("submission", "smtp"), ("submissions", ""), ("imap", "imap"),
                                                ("imaps", ""), ("pop3", "pop3"), ("pop3s", "")])
def test_nothing_is_weak(house: LiveServer, tmp_path: Path, port: str, starttls: str) -> None:
    needs("testssl")
    told = tmp_path / "told.json"
    host, number = house.place.endpoint(port)
    subprocess.run(["testssl", "--color", "0", "--warnings", "batch", *(["-t", starttls] if starttls else []),
                    "--jsonfile", told, f"{host}:{number}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    found = {one["id"]: (one["severity"], one["finding"]) for one in json.loads(told.read_text("utf-8"))}
    assert found["TLS1_3"][0] == "OK" and found["heartbleed"][0] == "OK" and len(found) > 90
    assert {name: said for name, said in found.items() if said[0] not in SOUND and name not in OF_THE_CERTIFICATE} == {}
