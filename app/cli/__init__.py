"""The commands of ``python -m app``: one module each, with a function of the same name."""
