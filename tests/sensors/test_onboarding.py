"""The onboarding sensor: the end for each status, and where the key is stored."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.support.leaks import cells, find
from tests.support.one_task import OneTask

pytestmark = pytest.mark.usefixtures("airflow_database")

STATUS = "POST /users/onboarding_status"
PASSWORD = "Passw0rd-of-the-test"


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password with which ``payer`` was onboarded."""
    monkeypatch.setenv("AIRFLOW_VAR_USER_PASSWORD", PASSWORD)


def wait(user_id: str, *, variable: str | None = None, fail_on_declined: bool = True) -> OneTask:
    return OneTask(f"wait_for_user_{variable}_{fail_on_declined}", user_id=user_id)


def answer(exchange: SandboxControl, body: str, times: int = 1) -> None:
    exchange.fault("status", STATUS, status=200, body=body, content_type="application/json", times=times)


@pytest.mark.parametrize("status", ["APPROVED", "DECLINED"])
def test_the_status_is_returned_for_branching(exchange: SandboxControl, payer: str, status: str) -> None:
    exchange.set_user(payer, status)
    task = wait(payer, fail_on_declined=False)
    assert task.step().state == "success"
    assert task.xcom() == status


def test_a_declined_user_fails_and_is_not_looked_at_again(exchange: SandboxControl, payer: str) -> None:
    exchange.decline(payer)
    end = wait(payer).step()
    assert end.state == "failed"
    assert f"The exchange answered DECLINED for user {payer}" in end.words


@pytest.mark.parametrize("fail_on_declined", [False, True])
def test_a_banned_user_fails_always(exchange: SandboxControl, payer: str, fail_on_declined: bool) -> None:
    answer(exchange, '{"status": "banned"}')
    end = wait(payer, fail_on_declined=fail_on_declined).step()
    assert end.state == "failed"
    assert "BANNED" in end.words


def test_without_a_name_for_it_the_key_is_stored_nowhere(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_quoine.exchange.models import UserCredentials

    secret = UserCredentials.from_json(os.environ["AIRFLOW_VAR_USER_KEY"]).api_secret
    before = variables()
    assert wait(payer).step().state == "success"
    assert variables() == before
    assert find({"key": secret}, cells(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db")) == set()


def variables() -> list[str]:
    """The names of all Variables."""
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        return sorted(name for (name,) in session.query(Variable.key))


def test_an_approval_without_a_key_fails_clearly(exchange: SandboxControl, payer: str) -> None:
    answer(exchange, '{"status": "APPROVED"}')
    end = wait(payer, variable="kept_key").step()
    assert end.state == "failed"
    assert f"approved user {payer} but handed out no key" in end.words
    assert "'kept_key'" in end.words


def test_an_approval_without_a_key_is_enough_where_nobody_wants_it(exchange: SandboxControl, payer: str) -> None:
    answer(exchange, '{"status": "APPROVED"}')
    assert wait(payer).step().state == "success"


def test_an_unknown_status_keeps_waiting_and_is_logged_once(
    exchange: SandboxControl, payer: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer(exchange, '{"status": "UNDER_REVIEW"}', times=3)
    answer(exchange, '{"status": "PENDING"}', times=2)
    task = wait(payer)
    assert task.step().state == "success"
    said = [record.getMessage() for record in caplog.records if record.name.endswith("waiting.status_queries")]
    who = f"Onboarding user {payer} is"
    assert said == [
        f"{who} UNDER_REVIEW, a state that is not on record; waiting on.",
        f"{who} PENDING.",
        f"{who} APPROVED.",
    ]


@pytest.mark.parametrize("missing", ["", PASSWORD + "-another"])
def test_a_password_that_is_missing_or_wrong_is_named_and_not_told(
    exchange: SandboxControl, payer: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_USER_PASSWORD", missing)
    end = wait(payer).step()
    assert end.state == "up_for_retry"
    assert "password" in end.words
    assert PASSWORD not in end.words
