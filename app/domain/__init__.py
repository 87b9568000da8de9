"""Pure values and rules: no I/O, no framework but Pydantic for values."""
