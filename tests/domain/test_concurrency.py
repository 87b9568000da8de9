from app.domain.concurrency import FixedConcurrency


def test_a_fixed_limit_gives_as_many_places_as_it_has():
    limit = FixedConcurrency(2)
    assert [limit.acquire() for _ in range(3)] == [True, True, False]
    limit.release(None)
    assert [limit.acquire() for _ in range(2)] == [True, False]
