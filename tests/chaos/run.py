"""One run: start everything, load it, do the faults, wait until quiet, examine the ledger."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.checks import examine
from tests.chaos.evidence import keep
from tests.chaos.faults import bound_seconds, cause
from tests.chaos.ledger import Ledger, Outcome
from tests.chaos.load import Load, Sender
from tests.chaos.plan import WEBS, Fault
from tests.chaos.quiet import wait_quiet
from tests.chaos.recovery import Prober, Recovery, Stored
from tests.chaos.world import World

LEAST_DOCUMENTS = 1_000
EXTRA_SECONDS = 60.0
"""Of load at most, until that many are accepted."""
SETTLE_SECONDS = 0.5

Say = Callable[[str], None]


@dataclass(kw_only=True)
class Result:
    """What came of a run.

    Attributes:
        faults: what does not add up; empty where all does.
        kept: folder of the logs, None where they were removed.
    """

    seed: int
    done: Sequence[Fault]
    recoveries: list[Recovery] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    kept: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a run goes.

    Attributes:
        seconds: of load.
        one_by_one: each fault begins when the one before is recovered from, instead of at its time.
        least_documents: are accepted, or the run does not count.
        planted: name of a bug in the processes, None for none.
        keep: the logs, of a run that passes as well.
    """

    seconds: float = 60.0
    one_by_one: bool = False
    least_documents: int = LEAST_DOCUMENTS
    planted: str | None = None
    keep: bool = False


def run(seed: int, faults: Sequence[Fault], course: Course, say: Say) -> Result:
    """Do one run; nothing of it is left but, where it failed, a folder with its logs."""
    folder = Path(tempfile.mkdtemp(prefix=f"docyard-chaos-{seed}-", dir=tempfile.gettempdir()))
    folder.chmod(0o711)
    result = Result(seed=seed, done=faults)
    ledger = Ledger()
    began_at = time.monotonic()
    try:
        with World(seed, folder, planted=course.planted) as world:
            say(f"  started in {time.monotonic() - began_at:.1f} s")
            _Runner(world, ledger, course, result, say).run()
            if result.faults or course.keep:
                keep(world, ledger, result, folder)
            result.faults += world.stop_services()
    except Exception:  # noqa: BLE001  (a run that breaks is a failed one; others may follow)
        result.faults.append(traceback.format_exc())
    result.facts["seconds"] = round(time.monotonic() - began_at)
    result.facts["load average"] = round(os.getloadavg()[0], 1)
    if result.faults or course.keep:
        result.kept = folder
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return result


class _Runner:
    """The part of a run between start and stop."""

    def __init__(
        self, world: World, ledger: Ledger, course: Course, result: Result, say: Say
    ) -> None:
        self._world = world
        self._ledger = ledger
        self._course = course
        self._result = result
        self._say = say
        ports = {web: world.proxies[f"client>{web}"].port for web in WEBS}
        webs = {web: f"http://127.0.0.1:{port}" for web, port in ports.items()}
        self._sender = Sender(ledger, webs)
        self._load = Load(result.seed, self._sender, WEBS)

    def run(self) -> None:
        """Load, harm, wait, examine."""
        with Stored(self._world, self._ledger) as stored:
            prober = Prober(self._world, self._ledger, self._sender, stored)
            began_at = time.monotonic()
            self._load.start()
            if self._course.one_by_one:
                for fault in self._result.done:
                    self._do(fault, prober)
                    time.sleep(SETTLE_SECONDS)
            else:
                self._do_at_their_times(began_at, prober)
            self._load_enough(began_at)
            self._load.stop()
            loaded_at = time.monotonic()
            self._result.faults += wait_quiet(self._world, self._ledger)
        verdict = examine(self._world, self._ledger)
        self._result.faults += verdict.faults
        accepted = self._ledger.count(Outcome.ACCEPTED)
        if accepted < self._course.least_documents:
            self._result.faults.append(f"only {accepted} documents were accepted")
        self._result.facts |= {
            "accepted": accepted,
            "doubtful": self._ledger.count(Outcome.DOUBTFUL),
            "ids": len(self._ledger.all()),
            **verdict.facts,
            "quiet after": f"{time.monotonic() - loaded_at:.1f} s",
            "answers": dict(self._ledger.answers),
        }

    def _do_at_their_times(self, began_at: float, prober: Prober) -> None:
        threads = []
        for fault in self._result.done:
            time.sleep(max(0.0, began_at + fault.at_seconds - time.monotonic()))
            threads.append(threading.Thread(target=self._do, args=(fault, prober), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _load_enough(self, began_at: float) -> None:
        until = began_at + (0 if self._course.one_by_one else self._course.seconds)
        patience = max(until, time.monotonic()) + EXTRA_SECONDS
        while time.monotonic() < until or (
            time.monotonic() < patience
            and self._ledger.count(Outcome.ACCEPTED) < self._course.least_documents
        ):
            time.sleep(0.1)

    def _do(self, fault: Fault, prober: Prober) -> None:
        began_at = time.monotonic()
        try:
            back_at = cause(self._world, fault)
            down = time.monotonic() - began_at
            recovery = prober.measure(fault, back_at)
        except Exception:  # noqa: BLE001  (of a thread; the run tells of it)
            self._result.faults.append(f"{fault}: {traceback.format_exc()}")
            return
        self._conclude(recovery, down)

    def _conclude(self, recovery: Recovery, down: float) -> None:
        bound = bound_seconds(recovery.fault)
        self._result.recoveries.append(recovery)
        seconds = recovery.seconds
        shown = "never" if seconds is None else f"{seconds:.1f} s"
        stored = recovery.stored_seconds
        self._say(
            f"  {recovery.fault}: down {down:.1f} s, recovered in {shown}"
            f" (stored {'never' if stored is None else f'{stored:.1f} s'})"
        )
        if seconds is None:
            self._result.faults.append(f"{recovery.fault}: not recovered from")
        elif self._course.one_by_one and seconds > bound:
            self._result.faults.append(
                f"{recovery.fault}: recovered in {seconds:.1f} s, promised are {bound:.0f} s"
            )
