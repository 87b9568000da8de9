"""``POST /routes/preview``: who would get a document, who would not, and why."""

from __future__ import annotations

import uuid
from typing import Annotated, ClassVar, Literal, Self

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.parts import Parts, parts_of
from app.domain.documents import (
    DEFAULT_TENANT,
    Attributes,
    Label,
    Labels,
    Priority,
    Version,
)
from app.domain.predictions import Prediction
from app.services.previews import Given, Preview, preview_given, preview_stored

router = APIRouter(tags=["routes"])

MAX_CONTENT_LENGTH = 100_000
"""Characters; ample for a category."""


class PreviewInput(BaseModel):
    """A document that is stored (its ``id`` alone), or one that is given.

    A given one has a ``category``, or ``content`` for an ingest worker to classify.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: Annotated[uuid.UUID | None, Field(description="Alone: of a stored document.")] = None
    content: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_CONTENT_LENGTH,
            description="To be classified, unless it has a category.",
        ),
    ] = None
    category: Annotated[Label | None, Field(description="What it is taken to be.")] = None
    confidence: Annotated[
        float | None, Field(ge=0, le=1, description="Of the category; 1 when left out.")
    ] = None
    version: Version = 0
    topics: Labels | None = None
    keys: Labels | None = None
    delivery: Literal["broadcast", "key", "topic"] | None = None
    priority: Priority | None = None
    attributes: Attributes | None = None

    @model_validator(mode="after")
    def _means_one_document(self) -> Self:
        if self.confidence is not None and self.category is None:
            message = "confidence needs a category"
            raise ValueError(message)
        if not self.stored and self.category is None and self.content is None:
            message = "give the id of a stored document alone, or a category, or content"
            raise ValueError(message)
        return self

    @property
    def stored(self) -> bool:
        """Whether a stored document is meant."""
        return self.id is not None and self.model_fields_set == {"id"}


class ExpectedRoute(BaseModel):
    """A destination that gets the document; without an id, a URL that a router chose.

    A collector has no `url`.
    """

    destination_id: uuid.UUID | None
    destination_key: str | None
    url: str | None
    reason: str


class OtherDestination(BaseModel):
    """A destination that does not get the document."""

    destination_id: uuid.UUID
    destination_key: str
    reason: str


class PreviewOutput(BaseModel):
    """What would become of the document.

    `category` and `confidence` are what it was judged by, null when it has none. `explanation` says
    why nobody gets it, null when somebody does. `routes` are complete, `others` come in pages.
    """

    category: str | None
    confidence: float | None
    explanation: str | None
    routes: list[ExpectedRoute]
    others: list[OtherDestination]
    next_cursor: uuid.UUID | None


@router.post("/routes/preview")
async def preview_routes(
    given: PreviewInput,
    request: Request,
    response: Response,
    parts: Annotated[Parts, Depends(parts_of)],
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: uuid.UUID | None = None,
) -> PreviewOutput:
    """Say which destinations get a document and why, and why the others do not.

    Nothing is stored or sent. Text is classified by an ingest worker: 503 if none answers within
    5 seconds.
    """
    found = await _preview(parts, given)
    others = [one for one in found.others if cursor is None or one[0].id > cursor]
    page = others[:limit]
    more = page[-1][0].id if len(others) > limit else None
    if more is not None:
        url = request.url.include_query_params(cursor=more, limit=limit)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return PreviewOutput(
        category=found.prediction.category if found.prediction else None,
        confidence=found.prediction.confidence if found.prediction else None,
        explanation=found.explanation,
        routes=[
            ExpectedRoute(
                destination_id=one.destination.id if one.destination else None,
                destination_key=one.destination.key if one.destination else None,
                url=one.url or None,
                reason=one.reason,
            )
            for one in found.routes
        ],
        others=[
            OtherDestination(destination_id=one.id, destination_key=one.key, reason=reason)
            for one, reason in page
        ],
        next_cursor=more,
    )


async def _preview(parts: Parts, given: PreviewInput) -> Preview:
    if given.stored and given.id is not None:
        return await preview_stored(
            parts.engine, parts.asker, DEFAULT_TENANT, given.id, router=parts.settings.router
        )
    prediction = None
    if given.category is not None:
        confidence = 1.0 if given.confidence is None else given.confidence
        prediction = Prediction(given.category, confidence, "given")
    document = Given(
        document=given,
        prediction=prediction,
        content=given.content or "",
        version=given.version,
        priority=given.priority,
    )
    return await preview_given(
        parts.engine, parts.asker, DEFAULT_TENANT, document, router=parts.settings.router
    )
