"""What a receiver is like when it is not hurried: the measure for everything that follows."""

from __future__ import annotations

from app.domain.latency import Latency
from app.domain.turns import Turn

SLOWER = 1.25
"""How many times the unhurried latency is too much."""
QUICKER = 1.1
QUICKER_SIGMAS = 2.0
"""What half the limit must bring to show that the whole was too much, and how certainly."""
SLACK_SECONDS = 0.003
"""A queue this short harms nobody, and may be that of our own event loop."""
FEWEST_ANSWERS = 4
"""By fewer nothing is judged."""
OUTDATED_SECONDS, OUTDATED_TURNS = 60.0, 60
"""For how long a measurement holds, whichever is longer."""
TOLERANCE, HIGHEST_TOLERANCE = 0.05, 0.3
"""Share of failures that is nobody's fault, until it is seen that there are more of them."""
TOLERANCE_PER_SHARE = 3
CREDIT_REQUESTS = 100
"""As many failures may come at once as are tolerated in so many requests."""
REMEMBERED_REQUESTS = 500


class Unhurried:
    """Latency and failures of the receiver as they are by its nature, not by our load."""

    def __init__(self, now: float) -> None:
        """Know nothing yet."""
        self.latency = Latency()
        self.tolerance = TOLERANCE
        self.measured_at = now
        self._pending = Latency()
        self._credit = CREDIT_REQUESTS * TOLERANCE
        self._ended = 0
        self._failed = 0

    def recall(self, latency: Latency, tolerance: float, measured_at: float) -> None:
        """Go on with what was known before a restart."""
        self.latency, self.tolerance, self.measured_at = latency, tolerance, measured_at

    def learn(self, turn: Turn) -> None:
        """Take over the turn before: this one shows that it was not the last good one.

        The first climb has no better measure than its own turns, and the last of them may be slow
        already without being so certainly.
        """
        self.latency.merge(self._pending)
        self._pending = turn.all

    def measure(self, turn: Turn, now: float) -> bool:
        """Take a turn, whose limit was low, for the receiver's nature.

        Returns:
            whether it is slower than was believed, so that judgements by that were wrong.
        """
        was_wrong = self.is_exceeded_by(turn.all, 0)
        self.latency, self.measured_at = turn.all, now
        self._ended += turn.ended
        self._failed += turn.failures
        if self._ended > REMEMBERED_REQUESTS:
            self._ended //= 2
            self._failed //= 2
        # As if a few more had not failed: one failure among ten proves nothing.
        share = self._failed / (self._ended + 1 / TOLERANCE)
        self.tolerance = min(max(TOLERANCE, TOLERANCE_PER_SHARE * share), HIGHEST_TOLERANCE)
        return was_wrong

    def is_outdated(self, now: float) -> bool:
        """Tell whether to measure again."""
        valid = max(OUTDATED_SECONDS, OUTDATED_TURNS * self.latency.seconds)
        return now - self.measured_at > valid

    def is_exceeded_by(self, latency: Latency, sigmas: float) -> bool:
        """Tell whether that is too much, so many standard deviations surely."""
        if sigmas and self.latency.answers < FEWEST_ANSWERS:
            return False
        if latency.seconds <= self.latency.seconds + SLACK_SECONDS:
            return False
        return latency.exceeds(self.latency, SLOWER, sigmas=sigmas)

    @staticmethod
    def is_quicker(eased: Latency, before: Latency) -> bool:
        """Tell whether a lower limit made a difference."""
        if before.seconds <= eased.seconds + SLACK_SECONDS:
            return False
        return before.exceeds(eased, QUICKER, sigmas=QUICKER_SIGMAS)

    def succeeded(self) -> None:
        """Earn tolerance for a share of a failure."""
        most = CREDIT_REQUESTS * self.tolerance
        self._credit = min(most, self._credit + self.tolerance)

    def tolerates_failure(self) -> bool:
        """Spend tolerance for one failure, if there is enough."""
        if self._credit < 1:
            return False
        self._credit -= 1
        return True
