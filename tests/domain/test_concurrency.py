from app.domain.concurrency import FixedConcurrency


def test_a_fixed_limit_gives_as_many_places_as_it_has():
    limit = FixedConcurrency(2)
    assert [bool(limit.acquire(0)) for _ in range(3)] == [True, True, False]
    limit.release(1, None, 0)
    assert [bool(limit.acquire(0)) for _ in range(2)] == [True, False]
    assert limit.wait_seconds(0) is None
