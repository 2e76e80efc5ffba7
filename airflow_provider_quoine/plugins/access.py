"""
Who may do what on the provider's pages: Airflow's own rights, whatever auth manager checks them.

Each route names one of these as a dependency; tests/plugins/test_access.py holds every route to it.
"""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException

ALL_DAGS = "~"
"""
Stands for all DAGs, as in the paths of Airflow's API; no DAG can be called so.

Without a DAG, Airflow's FAB auth manager lets everybody pass who may see one of them.
"""


def may_see_payments(user: BaseUser) -> bool:
    """Whether a person may see the runs of all DAGs, and so what they pay."""
    return _may("GET", DagAccessEntity.RUN, ALL_DAGS, user)


def may_settle(user: BaseUser) -> bool:
    """
    Whether a person may change connections: who may do that decides on the policy of payments too.

    Airflow's FAB auth manager can give a role to people who have not logged in. Its user has no id then: it may be
    anybody, also one who has decided under a name before.
    """
    is_known = user.get_id() is not None
    return is_known and may_see_payments(user) and get_auth_manager().is_authorized_connection(method="PUT", user=user)


def may_start(user: BaseUser, dag_id: str) -> bool:
    """Whether a person may start runs of a DAG."""
    return _may("POST", DagAccessEntity.RUN, dag_id, user)


def may_see_tasks(user: BaseUser, dag_id: str) -> bool:
    """Whether a person may see what the tasks of a DAG have made."""
    return _may("GET", DagAccessEntity.XCOM, dag_id, user)


def may_answer(user: BaseUser, dag_id: str) -> bool:
    """Whether a person may answer the questions of a DAG's tasks, where they are not put to others."""
    return _may("PUT", DagAccessEntity.HITL_DETAIL, dag_id, user)


def _may(method: ResourceMethod, entity: DagAccessEntity, dag_id: str, user: BaseUser) -> bool:
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    manager = get_auth_manager()
    return bool(manager.is_authorized_dag(method=method, access_entity=entity, details=details, user=user))


def _payments_reader(user: GetUserDep) -> BaseUser:
    if not may_see_payments(user):
        raise HTTPException(403, "You may not see the runs of all DAGs, so you may not see payments.")
    return user


def _applicants_reader(user: GetUserDep) -> BaseUser:
    if not may_see_payments(user):
        raise HTTPException(403, "You may not see the runs of all DAGs, so you may not see applicants.")
    return user


def _settler(user: GetUserDep) -> BaseUser:
    if not may_settle(user):
        raise HTTPException(
            403,
            "You have not logged in, or may not change connections: you may not settle, stop or resume payments.",
        )
    return user


def _tasks_reader(dag_id: str, user: GetUserDep) -> BaseUser:
    if not may_see_tasks(user, dag_id):
        raise HTTPException(403, "You may not see what the tasks of this DAG have made.")
    return user


AnyUser = GetUserDep
"""Anybody who is logged in."""
PaymentsReader = Annotated[BaseUser, Depends(_payments_reader)]
"""A person who may see payments."""
ApplicantsReader = Annotated[BaseUser, Depends(_applicants_reader)]
"""A person who may see what became of applicants, without their data."""
Settler = Annotated[BaseUser, Depends(_settler)]
"""A person who may settle, stop and resume payments."""
TasksReader = Annotated[BaseUser, Depends(_tasks_reader)]
"""A person who may see what the tasks of the DAG in the path have made."""
