"""What columns of several tables have in common."""

from __future__ import annotations

from sqlalchemy import DateTime, text

Timestamp = DateTime(timezone=True)
NOW = text("now()")
NO_LIST = text("'[]'::jsonb")
