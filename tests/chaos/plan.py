"""What is done to the parts and when: drawn from a seed, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

WEBS = ("web-1", "web-2")
WORKERS = ("worker-1", "worker-2")
CHILDREN = tuple(f"{worker}.{kind}" for worker in WORKERS for kind in ("ingest", "delivery"))
RECEIVERS = ("steady", "slow", "moody")
LINKS = (
    *(f"{part}>{server}" for part in (*WEBS, *WORKERS) for server in ("redis", "postgres")),
    *(f"client>{web}" for web in WEBS),
    *(f"delivery>{receiver}" for receiver in RECEIVERS),
)
"""Connections through a fault proxy, named by who opens them to whom."""


class Kind(StrEnum):
    """Kinds of faults."""

    KILL_WEB = "kill-web"
    KILL_CHILD = "kill-child"
    KILL_MASTER = "kill-master"
    KILL_REDIS = "kill-redis"
    KILL_POSTGRES = "kill-postgres"
    FREEZE = "freeze"
    TERMINATE = "terminate"
    RESET = "reset"
    BLACKHOLE = "blackhole"
    REDIS_FULL = "redis-full"
    POSTGRES_READ_ONLY = "postgres-read-only"
    POSTGRES_FULL = "postgres-full"
    CLOCK_JUMP = "clock-jump"


@dataclass(frozen=True, slots=True, kw_only=True)
class Possibility:
    """What a kind of fault is done to, and for how long.

    Attributes:
        least_seconds: between the fault and its end; for what is killed, until it starts again.
        usual_seconds: at most, in nine of ten.
        most_seconds: in the tenth.
    """

    targets: Sequence[str]
    least_seconds: float
    usual_seconds: float
    most_seconds: float


POSSIBILITIES: Mapping[Kind, Possibility] = {
    Kind.KILL_WEB: Possibility(targets=WEBS, least_seconds=0.2, usual_seconds=2, most_seconds=5),
    # Their supervisor starts them again.
    Kind.KILL_CHILD: Possibility(
        targets=CHILDREN, least_seconds=0, usual_seconds=0, most_seconds=0
    ),
    Kind.KILL_MASTER: Possibility(
        targets=WORKERS, least_seconds=0.2, usual_seconds=2, most_seconds=5
    ),
    Kind.KILL_REDIS: Possibility(
        targets=("redis",), least_seconds=0, usual_seconds=4, most_seconds=12
    ),
    Kind.KILL_POSTGRES: Possibility(
        targets=("postgres",), least_seconds=0, usual_seconds=4, most_seconds=12
    ),
    Kind.FREEZE: Possibility(
        targets=(*WEBS, *CHILDREN, *WORKERS, "redis", "postgres"),
        least_seconds=1,
        usual_seconds=6,
        most_seconds=20,
    ),
    Kind.TERMINATE: Possibility(
        targets=(*WORKERS, "everything"), least_seconds=0, usual_seconds=1, most_seconds=3
    ),
    Kind.RESET: Possibility(targets=LINKS, least_seconds=0, usual_seconds=0, most_seconds=0),
    Kind.BLACKHOLE: Possibility(targets=LINKS, least_seconds=1, usual_seconds=6, most_seconds=15),
    Kind.REDIS_FULL: Possibility(
        targets=("redis",), least_seconds=1, usual_seconds=4, most_seconds=10
    ),
    Kind.POSTGRES_READ_ONLY: Possibility(
        targets=("postgres",), least_seconds=1, usual_seconds=4, most_seconds=10
    ),
    Kind.POSTGRES_FULL: Possibility(
        targets=("postgres",), least_seconds=1, usual_seconds=4, most_seconds=10
    ),
    Kind.CLOCK_JUMP: Possibility(
        targets=("web-2",), least_seconds=2, usual_seconds=6, most_seconds=15
    ),
}
LONG_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at_seconds: behind the beginning of the load.
        lasts_seconds: until it ends, or until what was killed is started again.
        by: kind-specific size: by how many seconds a clock jumps.
    """

    kind: Kind
    target: str
    at_seconds: float
    lasts_seconds: float
    by: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.lasts_seconds:.1f} s" if self.lasts_seconds else ""
        by = f" by {self.by:+.0f} s" if self.by else ""
        return f"{self.kind} {self.target}{by}{lasts}"


LEAST_FAULTS = 8
SECONDS_PER_FAULT = 6.0
QUIET_START_SECONDS = 2.0


def draw(seed: int, seconds: float, kinds: Collection[Kind] = tuple(Kind)) -> list[Fault]:
    """Draw the faults of a run, in the order of their times.

    Args:
        seed: of everything that is drawn.
        seconds: of load; the last faults end by then.
        kinds: to choose from; none comes twice before each has come once.
    """
    random_ = random.Random(f"faults {seed}")  # noqa: S311  (no secret)
    count = max(min(LEAST_FAULTS, len(kinds)), round(seconds / SECONDS_PER_FAULT))
    bag: list[Kind] = []
    while len(bag) < count:
        bag += random_.sample(sorted(kinds), len(kinds))
    faults = [_draw_one(random_, kind, seconds) for kind in bag[:count]]
    return sorted(faults, key=lambda fault: fault.at_seconds)


def one_by_one(seed: int, kinds: Collection[Kind] = tuple(Kind)) -> list[Fault]:
    """Draw one fault of each kind, of any length that it may have; times do not matter.

    Of workers a child of either kind is killed: others take over from them in different ways.
    """
    random_ = random.Random(f"one by one {seed}")  # noqa: S311  (no secret)
    faults = [
        _draw_one(random_, kind, 60.0, long_share=1.0)
        for kind in kinds
        if kind is not Kind.KILL_CHILD
    ]
    if Kind.KILL_CHILD in kinds:
        faults += [
            Fault(kind=Kind.KILL_CHILD, target=target, at_seconds=0, lasts_seconds=0)
            for target in CHILDREN[:2]
        ]
    return faults


def _draw_one(
    random_: random.Random, kind: Kind, seconds: float, *, long_share: float = LONG_SHARE
) -> Fault:
    possible = POSSIBILITIES[kind]
    most = possible.most_seconds if random_.random() < long_share else possible.usual_seconds
    room = seconds - QUIET_START_SECONDS
    lasts = min(random_.uniform(possible.least_seconds, most), room / 2)
    at = QUIET_START_SECONDS + random_.uniform(0, room - lasts)
    by = random_.choice((-1, 1)) * random_.choice((2, 90, 4000)) if kind is Kind.CLOCK_JUMP else 0
    target = random_.choice(list(possible.targets))
    return Fault(
        kind=kind,
        target=target,
        at_seconds=round(at, 2),
        lasts_seconds=round(lasts, 2),
        by=by,
    )
