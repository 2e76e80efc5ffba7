"""
What the provider adds to Airflow's API server. The entrance is :mod:`~airflow_provider_quoine.plugins.plugin`.

Tasks cannot reach Airflow's database. What has to be done there, the API server does for them.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["plugin"]
