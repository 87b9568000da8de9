"""Processes that are kept alive: the parent's side, and what a child does for it."""
