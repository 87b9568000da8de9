"""Docyard: takes documents in, classifies each, stores it and fans it out."""

__version__ = "0.1.0"
