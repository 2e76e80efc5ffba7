"""What differs between the versions of Airflow that the tests run on."""

from __future__ import annotations

from importlib.metadata import version

AIRFLOW = version("apache-airflow-core")
IS_NEXT = tuple(map(int, AIRFLOW.split(".")[:2])) >= (3, 4)

TRIES_OF_TASKS, TRIES_OF_QUESTIONS = (
    ("task_instance", "hitl_detail") if IS_NEXT else ("task_instance_history", "hitl_detail_history")
)
"""Tables that have the earlier tries of tasks, and of their questions."""
