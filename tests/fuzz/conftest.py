"""How long to fuzz: a short form with the suite, ``make fuzz`` for 20,000 requests and more."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

import pytest

# Beside the tests, and what it asserts is to be explained like theirs.
pytest.register_assert_rewrite("tests.fuzz.drawn_lives")

SHORT = 100


@dataclass(frozen=True)
class Fuzz:
    """How much is drawn, and from what.

    Attributes:
        cases: requests to make; other fuzzing goes by it.
        seed: what the run can be repeated with; the short form is the same every time.
    """

    cases: int
    seed: int


@pytest.fixture(scope="session")
def fuzz() -> Fuzz:
    cases = int(os.environ.get("FUZZ_CASES", str(SHORT)))
    drawn = 1 if cases == SHORT else secrets.randbelow(1 << 31)
    return Fuzz(cases, int(os.environ.get("FUZZ_SEED", drawn)))
