"""Collectors to copy from. Run them with ``COLLECTORS=examples.collectors.ndjson_files``."""
