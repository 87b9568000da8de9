"""OpenAPI: FastAPI's own description, with the routes of the intake added by hand.

``python -m app openapi`` prints it; ``openapi.json`` holds it, and a test compares the two.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.domain.documents import DocumentInput
from app.settings import Settings

REFERENCES = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    """Make the application answer ``/openapi.json`` with the whole description."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # as FastAPI's documentation does it


def _describe(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components: dict[str, Any] = schema.setdefault("components", {}).setdefault("schemas", {})
    document = DocumentInput.model_json_schema(ref_template=REFERENCES)
    components["DocumentInput"] = document
    components["Problem"] = _problem()
    accepted = {**document, "title": "AcceptedDocument", "required": ["id"]}
    accepted["description"] = "What was sent, with its id; without content if `return=minimal`."
    components["AcceptedDocument"] = accepted
    schema["paths"]["/documents"] = {"post": _post_document()}
    settings: Settings = app.state.settings
    schema["paths"]["/documents/batch"] = {"post": _post_batch(settings)}
    schema["paths"]["/documents/bulk"] = {"post": _post_bulk()}
    schema["paths"]["/v1/event"] = {"post": _post_event()}
    schema["paths"]["/v1/batch"] = {"post": _post_events(settings)}
    components["BulkSummary"] = _bulk_summary()
    _replace_validation_errors(schema)
    # In a settled order, so that openapi.json changes only with the API.
    schema["paths"] = dict(sorted(schema["paths"].items()))
    schema["components"]["schemas"] = dict(sorted(components.items()))
    return schema


def _post_document() -> dict[str, Any]:
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/DocumentInput"}}}
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/AcceptedDocument"}}}
    return {
        "tags": ["documents"],
        "summary": "Accept a document",
        "operationId": "post_document",
        "description": (
            "202 means durable: Redis has acknowledged the append. The same `id` again is an"
            " update. Any content type is taken; the body is JSON. CloudEvents 1.0 are taken as"
            " well, structured, binary or batched: an event's data becomes the content, its other"
            " members stand under `attributes.cloudevent`, and its source and id make the id."
        ),
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "`return=minimal` leaves the content out of the answer.",
            }
        ],
        "requestBody": {"required": True, "content": body},
        "responses": {
            "202": {
                "description": "Accepted.",
                "content": answer,
                "headers": {"Location": {"schema": {"type": "string"}}},
            },
            "413": _problem_response("The body is too large."),
            "415": _problem_response("CloudEvents are taken in JSON only, and no body compressed."),
            "422": _problem_response("The document is not valid; nothing was queued."),
            "503": _problem_response("Not confirmed: send it again after `Retry-After`."),
        },
    }


def _post_batch(settings: Settings) -> dict[str, Any]:
    documents = {
        "type": "array",
        "minItems": 1,
        "maxItems": settings.max_batch_documents,
        "items": {"$ref": "#/components/schemas/DocumentInput"},
    }
    ids = {"type": "array", "items": {"type": "string", "format": "uuid"}}
    answer = {
        "type": "object",
        "required": ["id", "accepted", "ids", "replaced"],
        "properties": {
            "id": {"type": "string", "format": "uuid", "description": "Of the batch."},
            "accepted": {"type": "integer"},
            "ids": {**ids, "description": "Of the documents, in their order."},
            "replaced": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "Places of elements that a later one with the same id replaces.",
            },
        },
    }
    return {
        "tags": ["batches"],
        "summary": "Accept several documents, all or none",
        "operationId": "post_batch",
        "description": (
            f"At most {settings.max_batch_documents} elements and {settings.max_batch_bytes} bytes;"
            " they are queued in one append, or none is. Where an id comes twice, the last one wins"
            " (the highest `version` if versions are given)."
        ),
        "requestBody": {"required": True, "content": {"application/json": {"schema": documents}}},
        "responses": {
            "202": {
                "description": "All accepted.",
                "content": {"application/json": {"schema": answer}},
                "headers": {"Location": {"schema": {"type": "string"}}},
            },
            "413": _problem_response("Too many bytes or elements: use `/documents/bulk`."),
            "415": _problem_response("The body is compressed."),
            "422": _problem_response("An element is not valid; nothing was queued."),
            "503": _problem_response("Not confirmed: send it again after `Retry-After`."),
        },
    }


def _post_bulk() -> dict[str, Any]:
    line = {"schema": {"$ref": "#/components/schemas/DocumentInput"}}
    summary = {"schema": {"$ref": "#/components/schemas/BulkSummary"}}
    return {
        "tags": ["batches"],
        "summary": "Accept a stream of documents, one per line",
        "operationId": "post_bulk",
        "description": (
            "Newline-delimited JSON of any length, also with `Content-Encoding: gzip`. A line that"
            " is not valid is refused alone; the others are taken. A full queue slows the upload"
            " down instead of failing it. With `Accept: application/x-ndjson` each line's result"
            " is answered as soon as it is certain (read while you write), and the summary comes"
            " last."
        ),
        "parameters": [
            {
                "name": "on_error",
                "in": "query",
                "required": False,
                "schema": {"type": "string", "enum": ["continue", "abort"], "default": "continue"},
                "description": "`abort` ends the upload with the first line that is refused.",
            },
            {
                "name": "id",
                "in": "query",
                "required": False,
                "schema": {"type": "string", "format": "uuid"},
                "description": (
                    "Id of the batch, to look at `/batches/{id}` if the upload is cut off; the"
                    " same again goes on counting."
                ),
            },
        ],
        "requestBody": {
            "required": True,
            "content": {"application/x-ndjson": line, "application/jsonl": line},
        },
        "responses": {
            "200": {
                "description": "A result line per line, then the summary.",
                "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            },
            "202": {
                "description": "The upload is complete.",
                "content": {"application/json": summary},
                "headers": {"Location": {"schema": {"type": "string"}}},
            },
            "400": _problem_response("The gzip stream is broken; the lines before were taken."),
            "408": _problem_response("Nothing came for 30 s; what came before was taken."),
            "413": _problem_response("Too many bytes; what came before was taken."),
            "415": _problem_response("The encoding is not understood."),
            "422": _problem_response("No line is valid, or one was not and `on_error=abort`."),
            "503": _problem_response(
                "The queue took nothing more for 30 s, or the process ends; go on behind `lines`."
            ),
        },
    }


def _post_event() -> dict[str, Any]:
    return {
        "tags": ["events"],
        "summary": "Accept any JSON object",
        "operationId": "post_event",
        "description": (
            "The object's JSON becomes the content of a document, byte for byte; destinations with"
            " `body: raw` get it unchanged. With `EVENT_MODEL` it must fit that model."
        ),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        "responses": {
            "200": _ok("Where the document will be."),
            "413": _problem_response("The body is too large."),
            "415": _problem_response("The body is compressed."),
            "422": _problem_response("This is no event; nothing was queued."),
            "503": _problem_response("Not confirmed: send it again after `Retry-After`."),
        },
    }


def _post_events(settings: Settings) -> dict[str, Any]:
    events = {
        "type": "array",
        "minItems": 1,
        "maxItems": settings.max_batch_documents,
        "items": {"type": "object"},
    }
    return {
        **_post_event(),
        "summary": "Accept several JSON objects, all or none",
        "operationId": "post_events",
        "requestBody": {"required": True, "content": {"application/json": {"schema": events}}},
        "responses": {**_post_event()["responses"], "200": _ok("Where the batch is counted.")},
    }


def _ok(location: str) -> dict[str, Any]:
    return {
        "description": "Accepted: Redis has acknowledged the append.",
        "content": {"application/json": {"schema": {"const": "OK"}}},
        "headers": {"Location": {"schema": {"type": "string"}, "description": location}},
    }


def _bulk_summary() -> dict[str, Any]:
    text = {"type": "string"}
    error = {
        "type": "object",
        "required": ["line", "pointer", "code", "detail"],
        "properties": {
            "line": {"type": "integer"},
            "pointer": text,
            "code": text,
            "detail": text,
        },
    }
    return {
        "title": "BulkSummary",
        "description": "How far an upload came; a problem that ends one has the same members.",
        "type": "object",
        "required": ["id", "lines", "accepted", "rejected", "complete", "errors"],
        "properties": {
            "id": {"type": "string", "format": "uuid", "description": "Of the batch."},
            "lines": {
                "type": "integer",
                "description": "Of these, all before them included, the result is certain.",
            },
            "accepted": {"type": "integer"},
            "rejected": {"type": "integer"},
            "complete": {"type": "boolean"},
            "errors": {"type": "array", "items": error, "description": "The first 1,000."},
        },
    }


def _problem_response(description: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": reference}},
    }


def _replace_validation_errors(schema: dict[str, Any]) -> None:
    """FastAPI describes its own validation error; ours is a problem like every other."""
    for path in schema["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            if "422" in responses:
                responses["422"] = _problem_response("The request is not valid.")
            responses["default"] = _problem_response("Any other error.")
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _problem() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "title": "Problem",
        "description": "RFC 9457 problem details.",
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": text,
            "request_id": text,
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {"pointer": text, "detail": text},
                },
            },
        },
    }
