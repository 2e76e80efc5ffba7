"""
Captures of market streams into files.

:mod:`.spec` says what is to be captured and :mod:`.capture` does it. Below are the run that listens, the writer, the
store, and the parts of which files are made. The form of the files is in :mod:`~airflow_provider_quoine.formats`.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["capture", "parts", "spec", "store"]
