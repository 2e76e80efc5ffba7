"""Every failure is told in three short lines first, whatever its class, and then in details."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_provider_quoine import failures
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError, QuoineResponseError
from airflow_provider_quoine.failures import NOTHING_SENT, ONLY_READ, OUTLINES, check_all, explain, stop, without_retry
from airflow_provider_quoine.payments.approvals import ApprovalsMissingError
from airflow_provider_quoine.payments.records import Order, Payment
from airflow_provider_quoine.payments.refusals import PaymentError, PaymentInDoubtError
from airflow_provider_quoine.payments.schema import Kind, Step

COMMANDS = [
    "airflow quoine payments exists 'invoice 115' --id ID --why WHY",
    f"airflow quoine payments exists {'0' * 64} --kind user --id ID --why WHY",
]
PACKAGE = Path(failures.__file__).parent
SOURCES = [path for folder in ("operators", "sensors") for path in sorted((PACKAGE / folder).glob("*.py"))]
LONG = "A word, and a path s3://connection@bucket/" + "x" * 250 + " that is long. " * 40


def modules() -> Iterator[str]:
    """Every module that may define an error."""
    for found in pkgutil.walk_packages([str(PACKAGE)], "airflow_provider_quoine."):
        if not found.name.startswith(("airflow_provider_quoine.sandbox", "airflow_provider_quoine.example_dags")):
            yield found.name


def errors() -> list[type[Exception]]:
    """
    All errors of this package that a task may end with.

    It imports the package, Airflow's API server with it, so no test asks for them while tests are collected.
    """
    for module in modules():
        importlib.import_module(module)
    found: list[type[Exception]] = []
    more: list[type[Exception]] = [QuoineError, PaymentError]
    while more:
        error = more.pop()
        found.append(error)
        more += [each for each in error.__subclasses__() if each.__module__.startswith("airflow_provider_quoine")]
    return found


def made(error: type[Exception]) -> Exception:
    """An error of a class, with words."""
    fields: dict[type[Exception], dict[str, Any]] = {
        QuoineResponseError: {"status": 500, "message": "m", "body": "b"},
        ApprovalsMissingError: {"number": 1},
    }
    return error(LONG, **next((each for of, each in fields.items() if issubclass(error, of)), {}))


@pytest.mark.parametrize("before", range(100))
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_can_be_copied_from_one_line(before: int, command: str) -> None:
    words = f"{'x' * before} If it exists: {command}. If not: {command}. Then clear this task."
    told = explain(PaymentError(words)).splitlines()
    assert "".join(told[3:]).replace(" ", "") == words.replace(" ", "")
    assert len([line for line in told if command in line]) == 2
    # A longer command has a line of its own.
    assert all(len(line) <= max(failures.WIDTH, len(f"{command}.")) for line in told)


def test_a_failure_hides_the_error_that_led_to_it() -> None:
    assert stop("It ended.", next="Clear it.").__suppress_context__, "Airflow shows it in one long line otherwise"


def test_every_error_has_its_lines() -> None:
    for error in errors():
        happened, done, todo, *details = explain(made(error)).splitlines()
        assert all(len(line) <= failures.WIDTH for line in (happened, done, todo, *details)), error
        assert all(line.endswith(".") for line in (happened, done, todo)), error
        whole = " ".join(LONG.split()).replace(" ", "")
        assert whole == "".join(details).replace(" ", ""), f"nothing is left out of {error}"
        doubtful = getattr(error, "may_have_been_carried_out", error is PaymentInDoubtError)
        safe = any(word in done for word in ("Nothing was", "sent nothing", "Nothing is sent", "not sent again"))
        assert safe != doubtful, (error, done)


def test_every_outline_is_of_an_error() -> None:
    assert OUTLINES.keys() <= {error.__name__ for error in errors()} | {"AirflowException"}
    assert all(len(line) <= failures.WIDTH for outline in OUTLINES.values() for line in outline)


def test_a_lost_answer_to_a_read_is_no_doubt() -> None:
    doubtful = [each for each in errors() if getattr(each, "may_have_been_carried_out", False)]
    assert doubtful
    for error in doubtful:
        lost = made(error)
        lost.only_reads = True  # type: ignore[attr-defined]  # of QuoineError
        happened, done, todo, *_ = explain(lost).splitlines()
        outline = OUTLINES[next(each.__name__ for each in error.__mro__ if each.__name__ in OUTLINES)]
        assert (happened, done) == (outline[0], ONLY_READ), error
        assert "ask again" in todo, error


def test_an_unknown_outcome_names_the_payment_and_until_when_it_is_in_doubt() -> None:
    order = Order(
        exchange="https://api.quoine.com",
        kind=Kind.WITHDRAWAL,
        reference="invoice-7",
        account="25",
        user_id="25",
        address="bc1qexample",
        amount=Decimal("0.5"),
    )
    payment = Payment(
        order=order,
        step=Step.UNKNOWN,
        owner="",
        exchange_id=None,
        in_doubt_until=datetime(2026, 11, 26, 20, 30, tzinfo=UTC),
        policy=None,
        reason="",
        task="dag.task of run",
        state="",
    )
    lines = explain(PaymentInDoubtError("The answer was lost.", payment=payment)).splitlines()
    assert lines[0] == "The outcome of this payment is unknown."
    assert {
        "payment: invoice-7",
        "amount: 0.5 BTC",
        "address: bc1qexample",
        "in doubt until: 2026-11-26T20:30:00+00:00",
    } <= set(lines)


def test_what_no_retry_would_mend_is_not_retried_and_all_else_keeps_its_type() -> None:
    with pytest.raises(AirflowFailException) as final, without_retry():
        raise QuoineInputError("The amount is wrong.")
    assert str(final.value).splitlines() == [*OUTLINES["QuoineInputError"], "The amount is wrong."]
    assert final.value.__cause__ is None
    assert final.value.__suppress_context__
    with pytest.raises(QuoineError) as kept, without_retry():
        raise QuoineError("Later.")
    assert str(kept.value).splitlines()[0] == OUTLINES["QuoineError"].happened
    with pytest.raises(ZeroDivisionError), without_retry():
        _ = 1 / 0


def test_lines_are_given_once() -> None:
    with pytest.raises(AirflowException) as caught, without_retry(), without_retry():
        raise QuoineInputError("The amount is wrong.")
    assert str(caught.value).count(NOTHING_SENT) == 1


def test_all_that_is_wrong_is_told_at_once() -> None:
    def wrong(words: str) -> None:
        raise QuoineInputError(words)

    with pytest.raises(QuoineInputError) as caught:
        check_all((lambda: wrong("The first."), lambda: 2, lambda: wrong("The last.")))
    assert str(caught.value).splitlines() == ["The first.", "The last."]
    assert check_all((lambda: 1, lambda: 2)) == [1, 2]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_operators_and_sensors_fail_in_this_form_only(source: Path) -> None:
    raised = [
        node
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    ]
    assert not [node.lineno for node in raised if node.exc.func.id in {"AirflowFailException", "AirflowException"}]  # type: ignore[union-attr]  # checked above


#: Characters that an id or a number may have in one of the three lines.
FILLED_IN = 10


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_none_of_the_three_lines_has_to_be_shortened(source: Path) -> None:
    stops = [
        node
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "stop"
    ]
    lines = [
        value
        for node in stops
        for value in (*node.args, *(each.value for each in node.keywords if each.arg != "details"))
    ]
    assert [ast.unparse(line) for line in lines if length(line) > failures.WIDTH] == []


def length(line: ast.expr) -> int:
    """Characters of a text in the source, its holes filled in."""
    parts = line.values if isinstance(line, ast.JoinedStr) else [line]
    return sum(len(str(part.value)) if isinstance(part, ast.Constant) else FILLED_IN for part in parts)


def test_a_stop_has_the_same_form() -> None:
    lines = str(stop("It ended.", next="Start anew.", details=LONG)).splitlines()
    assert lines[:3] == ["It ended.", "Nothing was sent.", "Start anew."]
    assert max(map(len, lines)) <= failures.WIDTH
