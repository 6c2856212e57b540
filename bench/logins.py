"""How long a refusal takes, by who was asked for: the medians must not tell whether somebody exists (reliability D1).

Usage: python -m bench.logins [samples]
Contract: one process, a store in a temporary directory, the loopback address (no rate limit); the kinds take turns, so that
    what else the machine does meets all of them. Prints each kind's median and its distance from the unknown user's.
Failure: exit 1 where a median is 5 % off.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fumibako.model.account import AccountStatus
from fumibako.model.ops import SetAccountStatus
from fumibako.services.login import Denied
from tests.support.mailhouse import MailHouse, mail_house

PASSWORD = "correct horse"
TOLERANCE = 0.05
KINDS = {
    "unknown user": ("nobody@example.jp", "wrong", ""),
    "unknown domain": ("nobody@elsewhere.example", "wrong", ""),
    "wrong password": ("dora@example.jp", "wrong", ""),
    "foreign authzid": ("dora@example.jp", "wrong", "alice@example.jp"),
    "disabled account": ("disabled@example.jp", PASSWORD, ""),
}


async def refusal_s(house: MailHouse, authcid: str, password: str, authzid: str) -> float:
    """Seconds from the message of SASL PLAIN to the answer."""
    exchange = house.login.exchange("PLAIN", "127.0.0.1")
    begun = time.perf_counter()
    answer = await exchange.step(f"{authzid}\0{authcid}\0{password}".encode())
    elapsed_s = time.perf_counter() - begun
    if answer != Denied():
        raise RuntimeError(f"{authcid}: {answer}")
    return elapsed_s


async def measure(samples: int) -> dict[str, float]:
    """The median of each kind, seconds."""
    with tempfile.TemporaryDirectory() as directory:
        async with mail_house(Path(directory) / "data") as house:
            for address in ("dora@example.jp", "disabled@example.jp"):
                await house.with_password(address, PASSWORD)
            await house.store.commit(SetAccountStatus("disabled@example.jp", AccountStatus.DISABLED))
            taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(samples):
                for kind, attempt in KINDS.items():
                    taken[kind].append(await refusal_s(house, *attempt))
            return {kind: statistics.median(found) for kind, found in taken.items()}


def main() -> int:
    medians = asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
    usual = medians["unknown user"]
    for kind, median in medians.items():
        print(f"{kind:18} {median * 1000:8.2f} ms  {(median / usual - 1) * 100:+6.2f} %")
    return int(any(abs(median / usual - 1) > TOLERANCE for median in medians.values()))


if __name__ == "__main__":
    sys.exit(main())
