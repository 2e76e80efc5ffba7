"""Changes the questions that tasks ask people, in Airflow's tables: in the API server, because no task may."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState


def write_question(words: str) -> bool:
    """
    Change a question's text, or close it with a person's answer.

    A question that waits for an answer is not closed: it may have been asked again meanwhile.

    :param words: of :func:`~airflow_provider_quoine.api_server.write_question`, as JSON.
    :return: whether it was done.
    """
    wanted: dict[str, Any] = json.loads(words)
    with create_session() as session:
        key = UUID(wanted["task_instance"])
        question, task = session.get(HITLDetail, key), session.get(TaskInstance, key)
        if question is None or task is None:
            return False
        question.body = wanted["body"] or question.body
        answer = wanted["answer"]
        if answer is None:
            return True
        if task.state == TaskInstanceState.AWAITING_INPUT:
            return False
        question.chosen_options = [answer["chosen"]]
        question.params_input = answer["fields"]
        question.responded_by = answer["by"]
        question.responded_at = datetime.now(UTC)
        return True
