"""Captures of market streams into files: time windows, parts, formats, and the writer."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["parts", "run", "schedule", "store", "writer"]
