"""Pages: the ``Link`` header that leads to the next one (RFC 8288)."""

from __future__ import annotations

from fastapi import Request, Response


def link_next(request: Request, response: Response, cursor: object | None) -> None:
    """Name the next page, which has the same parameters; nothing where there is none."""
    if cursor is not None:
        url = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
