"""The proof: `make prove` is the long run, at most 75 minutes on 2 cores; its parts and the sum of all runs are below.

`--kills`, `--power`, `--damage`, `--faults`: one part with options of its own. `--release`: so many long runs (`--runs`, 0 for
none) with seeds that nobody has used yet, and after each the sum. The short form of everything is in `make test`.

Contract: each part writes its results and docs/proof.md as it goes; the sum (tools/total.py) is written behind the last.
Failure: exit code 1 where a part or any run of the sum is not clean; the parts behind it still run.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tools import damage, faults, kills, power, total

PARTS = {"--kills": kills.main, "--power": power.main, "--damage": damage.main, "--faults": faults.main}
KILLS_SHARE, SPARE_S = 0.4, 60.0      # of the minutes; power cuts get what is left but so much, which their last part may need
STATES = 250        # of each work on each file system


def long_run(seed: int, minutes: float) -> bool:
    """Everything once. True when all of it is clean."""
    begun_s = time.monotonic()
    clean = _part("--damage", minutes, "--seed", str(seed))
    clean &= _part("--faults", minutes)         # has no seed: every call of every way
    clean &= _part("--kills", minutes, "--rounds", "0", "--minutes", f"{minutes * KILLS_SHARE:g}", "--seed", str(seed))
    left_minutes = minutes - (time.monotonic() - begun_s + SPARE_S) / 60
    return _part("--power", left_minutes, "--minutes", f"{max(0.0, left_minutes):g}", "--states", str(STATES),
                 "--seeds", str(seed)) and clean


def _part(name: str, left_minutes: float, *words: str) -> bool:
    print(f"\n{' '.join((name, *words))}: the long run has {left_minutes:.0f} more minutes", flush=True)
    try:
        return PARTS[name](list(words)) == 0
    except Exception:       # it has written down how far it came
        traceback.print_exc()
        return False


def main(words: list[str]) -> int:
    if words and words[0] in PARTS:
        return PARTS[words[0]](words[1:])
    parser = argparse.ArgumentParser(prog="python -m tools.prove", description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("--release", action="store_true", help="several long runs, and what all runs of this version come to")
    parser.add_argument("--runs", type=int, default=1, help="of a release: long runs before the sum")
    parser.add_argument("--minutes", type=float, default=75.0, help="of each long run")
    arguments = parser.parse_args(words)
    clean = True
    for _ in range(arguments.runs if arguments.release else 1):
        clean &= long_run(total.next_seed(), arguments.minutes)
        clean &= total.add_up()
    if arguments.release and not arguments.runs:
        clean = total.add_up()
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
