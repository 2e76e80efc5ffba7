"""
Applications: an onboarding form and its documents, kept encrypted between the page and the task that sends them.

Airflow's tables and logs only have an application's reference, which says nothing of the person.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = ["application", "checks", "configuration", "store"]
