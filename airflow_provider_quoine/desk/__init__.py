"""
What people decide about payments and applicants and see of them, whether they give commands or use the pages.

It runs where Airflow's database is reached: on the API server, and on hosts where ``airflow quoine`` is used.
"""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = [
    "answers",
    "applicants",
    "history",
    "opening",
    "overview",
    "questions",
    "settling",
    "tasks",
    "typed_codes",
    "words",
]
