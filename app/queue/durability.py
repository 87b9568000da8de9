"""How durable the Redis behind a 202 really is (design, P1)."""

from __future__ import annotations

from app.domain.errors import SettingsInvalid
from app.settings import Durability

RANK: dict[Durability, int] = {"always": 3, "everysec": 2, "none": 1, "unknown": 0}


def judge(appendonly: str | None, appendfsync: str | None) -> Durability:
    """Return what the two settings come to."""
    if appendonly is None:
        return "unknown"
    if appendonly != "yes" or appendfsync == "no":
        return "none"
    return "always" if appendfsync == "always" else "everysec"


def enough(found: Durability, wanted: Durability | None) -> bool:
    """Tell whether a server promises what is wanted of it."""
    return wanted is None or RANK[found] >= RANK[wanted]


def require(found: Durability, wanted: Durability | None) -> None:
    """Refuse a server that promises less than is wanted.

    Raises:
        SettingsInvalid: says what the server does and what to set.
    """
    if enough(found, wanted):
        return
    sentence = (
        f"REQUIRE_DURABILITY={wanted}, but this Redis is {found!r}. Set `appendonly yes` and"
        f" `appendfsync {wanted}` on it, or take a plan that persists."
    )
    raise SettingsInvalid(sentence)
