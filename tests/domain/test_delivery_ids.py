import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.delivery_ids import DeliveryPlace, delivery_id, parse_delivery_id

PLACES = st.builds(
    DeliveryPlace, st.uuids(), st.integers(0, 2**63 - 1), st.uuids(), st.integers(0, 2**15 - 1)
)


@given(PLACES)
def test_an_id_holds_the_whole_key(place):
    text = delivery_id(place)
    assert parse_delivery_id(text) == place
    assert text.replace("_", "").replace("-", "").isalnum()


GOOD = delivery_id(DeliveryPlace(uuid.UUID(int=1), 2, uuid.UUID(int=3), 4))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dlv_",
        GOOD[:-1],
        GOOD + "A",
        "msg_" + GOOD[4:],
        GOOD[:-1] + "!",
        GOOD[:-1] + "=",
        "dlv_" + "_" * 56,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="id"):
        parse_delivery_id(text)
