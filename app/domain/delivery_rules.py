"""What an operator may say about how a destination is delivered to."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.domain.backoff import DAY

MAX_CONCURRENCY = 1000
MIN_PER_SECOND = 0.00001
"""One in a day or so. The reciprocal of what is far less is no time that can be written down."""
MAX_PER_SECOND = 10_000
MAX_RETRIES = 50
LEAST_DELAY_SECONDS = 0.1
MOST_DELAY_SECONDS = 7 * DAY
MOST_AGE_SECONDS = 30 * DAY
MAX_BATCH_ITEMS = 1000
MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_BATCH_WAIT_SECONDS = 60.0

_STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)


class ConcurrencyInput(BaseModel):
    """Bounds of the requests in flight; between them Docyard finds what the receiver takes."""

    model_config: ClassVar[ConfigDict] = _STRICT

    min: Annotated[
        int,
        Field(ge=1, le=MAX_CONCURRENCY, description="Kept to while the receiver answers at all."),
    ] = 1
    max: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_CONCURRENCY,
            description="Never exceeded; the same as `min` fixes the number. Null for what the"
            " setting `DELIVERY_CONCURRENCY` says.",
        ),
    ] = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max is not None and self.max < self.min:
            message = "`max` is below `min`"
            raise ValueError(message)
        return self


class RetryInput(BaseModel):
    """How long to go on with a delivery that fails."""

    model_config: ClassVar[ConfigDict] = _STRICT

    schedule_seconds: Annotated[
        list[Annotated[float, Field(ge=LEAST_DELAY_SECONDS, le=MOST_DELAY_SECONDS)]] | None,
        Field(
            max_length=MAX_RETRIES,
            description="Delay behind the first attempt, the second, …; when it ends, so does the"
            " delivery. Empty: one attempt. Null for the usual one: 5 s, 5 min, 30 min, 2 h, 5 h,"
            " 10 h, 14 h, 20 h, 24 h. Each is spread by ± 20 %.",
        ),
    ] = None
    max_age_seconds: Annotated[
        float | None,
        Field(
            ge=1,
            le=MOST_AGE_SECONDS,
            description="No attempt is planned later than this after the delivery was; the time in"
            " which it was held does not count. Null for five days.",
        ),
    ] = None


class BatchInput(BaseModel):
    """Documents that travel together: one signed request, accepted or tried again as a whole."""

    model_config: ClassVar[ConfigDict] = _STRICT

    max_items: Annotated[
        int, Field(ge=1, le=MAX_BATCH_ITEMS, description="Documents in one request, at most.")
    ] = 100
    max_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=MAX_BATCH_BYTES,
            description="Content in one request, at most; a document that is longer goes alone.",
        ),
    ] = 1024 * 1024
    max_wait_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_BATCH_WAIT_SECONDS,
            description="How long a document waits for others before it goes with those there are.",
        ),
    ] = 1.0
    format: Annotated[
        Literal["json", "ndjson"],
        Field(description="`json`: an array; `ndjson`: one document a line."),
    ] = "json"


QueueKind = Literal["fifo", "lifo", "priority"]
Queue = Annotated[
    QueueKind,
    Field(
        description="In which order it gets what is due: `fifo` the oldest first, `lifo` the"
        " newest, `priority` the most urgent. Retries come in turn with either."
    ),
]
Ordered = Annotated[
    bool,
    Field(
        description="Whether the versions of one document come one after the other: never two in"
        " flight, never an older one behind a newer."
    ),
]
MaxPerSecond = Annotated[
    float | None,
    Field(
        ge=MIN_PER_SECOND,
        le=MAX_PER_SECOND,
        allow_inf_nan=False,
        description="No more requests begin in a second, whichever processes send them; 0.1 for"
        " one in ten seconds.",
    ),
]
