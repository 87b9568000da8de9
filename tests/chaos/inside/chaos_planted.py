"""Bugs, planted by replacing parts of the product in a process under test.

Each takes away one thing that a promise rests on, and a run must notice.
"""


def plant(name):
    """Plant one bug in this process."""
    BUGS[name]()


def acknowledge_before_commit():
    """A chunk is acknowledged as it is taken up, as queues with automatic acknowledgement do."""
    from app.queue.consumer import HardenedConsumer
    from app.queue.names import LANES

    take = HardenedConsumer.__next__

    def take_and_acknowledge(self):
        message = take(self)
        if message is not None and self.queue_name in LANES:
            self.broker.settle("ack", self.queue_name, message)
        return message

    HardenedConsumer.__next__ = take_and_acknowledge


def no_version_guard():
    """Whatever is stored last wins."""
    from app.storage import documents

    documents.UPSERT._post_values_clause.update_whereclause = None


def leases_never_expire():
    """A delivery process that dies keeps its destinations."""
    from app.storage import leases

    for_ever = 10 * 365 * 86_400.0
    acquire, renew = leases.acquire, leases.renew

    def acquire_for_ever(connection, tenant_id, destination_id, holder, ttl_seconds):
        del ttl_seconds
        return acquire(connection, tenant_id, destination_id, holder, for_ever)

    def renew_for_ever(connection, lease, ttl_seconds, throttle=None):
        del ttl_seconds
        return renew(connection, lease, for_ever, throttle)

    leases.acquire, leases.renew = acquire_for_ever, renew_for_ever


def no_sweeper():
    """Nobody looks for what doorbells missed."""
    from worker.sweeper import Sweeper

    Sweeper.start = Sweeper.stop = lambda _: None


def answer_before_append():
    """A document is confirmed as soon as it waits for its append."""
    from app.queue.intake import Intake

    def forget(appended):
        appended.add_done_callback(lambda one: one.cancelled() or one.exception())

    async def submit(self, encoded, lane):
        forget(self._wait((encoded,), len(encoded), lane, None))

    async def submit_many(self, encoded, lane, batch=None):
        if encoded:
            forget(self._wait(encoded, sum(map(len, encoded)), lane, batch))

    Intake.submit, Intake.submit_many = submit, submit_many


BUGS = {
    "acknowledge-before-commit": acknowledge_before_commit,
    "no-version-guard": no_version_guard,
    "leases-never-expire": leases_never_expire,
    "no-sweeper": no_sweeper,
    "202-before-append": answer_before_append,
}
