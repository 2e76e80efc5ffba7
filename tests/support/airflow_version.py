"""What differs between the versions of Airflow that the tests run on."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

AIRFLOW = version("apache-airflow-core")
IS_NEXT = tuple(map(int, AIRFLOW.split(".")[:2])) >= (3, 4)

CLEAR_DISCARDS_TASK_STATE = IS_NEXT
"""Clearing a task discards its task state, unless the person who clears it says otherwise."""

KEEP_TASK_STATE: dict[str, Any] = {"keep_task_state": True} if CLEAR_DISCARDS_TASK_STATE else {}
"""Has Airflow's API keep a task's state when it clears the task."""

QUESTION_IS_REPLACED = IS_NEXT
"""A task that asks a person again replaces its question. Before, the text of its first question stayed."""

TRIES_OF_TASKS, TRIES_OF_QUESTIONS = (
    ("task_instance", "hitl_detail") if IS_NEXT else ("task_instance_history", "hitl_detail_history")
)
"""Tables that have the earlier tries of tasks, and of their questions."""

RESULTS_OF_TASKS = "xcom_v2" if IS_NEXT else "xcom"
"""Table that has what tasks return."""

SCHEDULER_SURVIVES_A_CLEAR_OF_A_FROZEN_TASK = AIRFLOW != "3.4.0b2"
"""
Whether a task may be cleared while its worker is frozen: when its heartbeat times out as well, the scheduler of 3.4.0b2
dies of "UNIQUE constraint failed: task_instance.…".
"""
