"""
The form of a capture's files: rows, the entry beside each file of them, and the manifest.

Who writes files (:mod:`~airflow_provider_quoine.captures`) and who reads them
(:mod:`~airflow_provider_quoine.datasets`) have it from here. Nothing here opens one.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["entries", "forms", "kinds", "lines", "manifest", "parquet", "pieces"]
