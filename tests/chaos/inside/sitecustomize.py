"""Runs first in processes under test whose PYTHONPATH names this folder; in no others.

``CHAOS_CLOCK`` names a file with the seconds by which the clock is off, ``CHAOS_PLANTED`` a bug.
"""

import os

if clock := os.environ.get("CHAOS_CLOCK"):
    import chaos_clock

    chaos_clock.install(clock)

if planted := os.environ.get("CHAOS_PLANTED"):
    import chaos_planted

    chaos_planted.plant(planted)
