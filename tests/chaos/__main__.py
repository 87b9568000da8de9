"""``make chaos``: faults at random, from a seed that is printed and can be repeated."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.chaos.elsewhere import Installation, run_against
from tests.chaos.inside.chaos_planted import BUGS
from tests.chaos.plan import Kind, draw, one_by_one
from tests.chaos.run import Course, Result, run

PLANTED = tuple(BUGS)


def main() -> int:
    """Do the runs; return 1 when one failed, or when a planted bug was not caught."""
    asked = _arguments()
    if asked.against is not None:
        return _run_against(asked)
    results = []
    for seed in _seeds(asked):
        results.append(_run(asked, seed))
        caught = asked.planted is not None and results[-1].faults
        if caught or (results[-1].faults and asked.stop):
            break
    _summarise(results)
    failed = [one.seed for one in results if one.faults]
    if asked.planted is not None:
        _say(f"{asked.planted}: {'caught by ' + str(failed[0]) if failed else 'NOT CAUGHT'}")
        return int(not failed)
    return int(bool(failed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seeds", type=int, default=1, help="so many fresh seeds (1)")
    which.add_argument("--seed", type=int, help="repeat this one")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load in each run (60)")
    parser.add_argument(
        "--kinds",
        nargs="+",
        type=Kind,
        default=list(Kind),
        metavar="KIND",
        help=f"faults to choose from: {', '.join(Kind)}",
    )
    parser.add_argument(
        "--one-by-one",
        action="store_true",
        help="each kind once, the next when all has recovered: measures recovery",
    )
    parser.add_argument("--keep", action="store_true", help="the logs of runs that pass as well")
    parser.add_argument("--stop", action="store_true", help="at the first run that fails")
    parser.add_argument(
        "--planted", choices=PLANTED, help="plant this bug; runs until a seed catches it"
    )
    yours = parser.add_argument_group("an installation of yours: you pull the plugs")
    yours.add_argument(
        "--against", metavar="URL", help="load and examine this one (ADMIN_API_KEY=… if it has one)"
    )
    yours.add_argument(
        "--receive-at", metavar="URL", help="where it reaches this machine, if it is another one"
    )
    yours.add_argument("--port", type=int, default=0, help="to receive on (a free one)")
    yours.add_argument(
        "--patience", type=float, default=120.0, help="seconds for it to become quiet (120)"
    )
    return parser.parse_args()


def _seeds(asked: argparse.Namespace) -> Sequence[int]:
    if asked.seed is not None:
        return [asked.seed]
    fresh = random.SystemRandom()
    return [fresh.randrange(10**6) for _ in range(asked.seeds)]


def _run(asked: argparse.Namespace, seed: int) -> Result:
    faults = (
        one_by_one(seed, asked.kinds)
        if asked.one_by_one
        else draw(seed, asked.seconds, asked.kinds)
    )
    _say(f"seed {seed}: {len(faults)} faults (load average {os.getloadavg()[0]:.1f})")
    for fault in faults:
        _say(f"  {fault.at_seconds:6.2f} s  {fault}")
    course = Course(
        seconds=asked.seconds,
        one_by_one=asked.one_by_one,
        planted=asked.planted,
        keep=asked.keep,
    )
    result = run(seed, faults, course, _say)
    _tell(result)
    return result


def _run_against(asked: argparse.Namespace) -> int:
    (seed,) = _seeds(asked)
    _say(f"seed {seed}: {asked.seconds:.0f} s of load; pull what plugs you like")
    installation = Installation(
        address=asked.against,
        api_key=os.environ.get("ADMIN_API_KEY"),
        receive_at=asked.receive_at,
        port=asked.port,
        patience_seconds=asked.patience,
    )
    result = run_against(installation, seed, asked.seconds, _say)
    _tell(result)
    return int(bool(result.faults))


def _tell(result: Result) -> None:
    _say("  " + ", ".join(f"{name} {value}" for name, value in result.facts.items()))
    for fault in result.faults:
        _say(f"  FAULT {fault}")
    kept = f"; logs in {result.kept}" if result.kept else ""
    _say(f"seed {result.seed}: {'FAILED' if result.faults else 'passed'}{kept}")


def _summarise(results: Sequence[Result]) -> None:
    kinds = Counter(fault.kind for result in results for fault in result.done)
    _say("")
    _say(f"{len(results)} runs, {sum(not one.faults for one in results)} passed")
    _say(f"{sum(kinds.values())} faults of {len(kinds)} kinds")
    slowest: dict[str, float] = {}
    for result in results:
        for recovery in result.recoveries:
            seconds = float("inf") if recovery.seconds is None else recovery.seconds
            kind = recovery.fault.kind
            slowest[kind] = max(slowest.get(kind, 0.0), seconds)
    for kind, count in sorted(kinds.items()):
        _say(f"  {kind:20} {count:4}   slowest recovery {slowest.get(kind, float('nan')):.1f} s")


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
