"""The pages of payments: what waits for whom, the list, one payment with its history, and people's decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Annotated, Any
from urllib.parse import urlencode

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from fastapi import APIRouter, Depends, Form, HTTPException, Query
from fastapi.responses import Response

from airflow_provider_quoine.desk import history, overview
from airflow_provider_quoine.desk.opening import opened_ledger, wipe_in_passing
from airflow_provider_quoine.desk.questions import APPROVAL, open_questions
from airflow_provider_quoine.desk.settling import Key, New, Settling, Which
from airflow_provider_quoine.desk.tasks import Task, starters
from airflow_provider_quoine.desk.words import in_words
from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.payments.approvals import Person, is_same
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import History, Order, Payment
from airflow_provider_quoine.payments.refusals import (
    PAID_TWICE,
    LedgerUnusableError,
    PaymentError,
    check_reference,
    paid_twice,
)
from airflow_provider_quoine.payments.schema import IN_DOUBT, SENDABLE, Kind, Step
from airflow_provider_quoine.payments.transaction import clean
from airflow_provider_quoine.payments.users import user_reference
from airflow_provider_quoine.payments.withdrawals import exchange_of
from airflow_provider_quoine.plugins.access import PaymentsReader, Settler, may_answer, may_settle
from airflow_provider_quoine.plugins.pages import page, see
from airflow_provider_quoine.plugins.protection import from_our_form

router = APIRouter()

Text = Annotated[str, Query(max_length=500)]
Typed = Annotated[str, Form(max_length=500)]
Why = Annotated[str, Form(max_length=1000)]
OurForm = Depends(from_our_form)


def payment_path(order: Order) -> str:
    """Return the path of a payment's page. A reference may hold any sign, so it is no part of the path itself."""
    named = {"kind": str(order.kind), "reference": order.reference, "exchange": order.exchange}
    return f"/payments/payment?{urlencode(named)}"


@router.get("/payments")
def payments(
    user: PaymentsReader,
    step: Text = "",
    kind: Text = "",
    first: Text = "",
    last: Text = "",
    reference: Text = "",
    number: Annotated[int, Query(ge=1, le=1_000_000, alias="page")] = 1,
) -> Response:
    """Show all payments, and what waits for the person."""
    wanted = overview.Filter(
        step=clean(step),
        kind=clean(kind),
        since=_day(first),
        until=_day(last, after=timedelta(days=1)),
        reference=clean(reference),
    )
    try:
        with opened_ledger() as ledger:
            settles = may_settle(user)
            shown: dict[str, Any] = {
                "stop": overview.stop_of(ledger),
                "questions": _questions(ledger, user),
                "doubts": overview.doubts(ledger, who=_actor(user), user_id=str(user.get_id())) if settles else [],
                "accounts": overview.accounts(ledger),
                "listed": overview.list_payments(ledger, wanted, page=number),
            }
    except PaymentError as error:
        return _unusable(user, error)
    asked = {"step": step, "kind": kind, "first": first, "last": last, "reference": reference}
    return page(
        "payments.html",
        user=user,
        settles=settles,
        most_waiting=overview.MOST_WAITING,
        paid_twice=PAID_TWICE,
        steps=list(Step),
        asked=asked,
        at_page=lambda other: f"/payments?{urlencode(asked | {'page': str(other)})}",
        path=payment_path,
        **shown,
    )


@router.post("/payments/filter", dependencies=[OurForm])
def filter_(
    user: PaymentsReader,
    step: Typed = "",
    kind: Typed = "",
    first: Typed = "",
    last: Typed = "",
    reference: Typed = "",
) -> Response:
    """Filter the list. A page's address is in logs, so an e-mail address becomes its hash before it is in one."""
    if "@" in reference:
        try:
            with opened_ledger() as ledger:
                reference = user_reference(ledger, clean(reference))
        except PaymentError as error:
            return _unusable(user, error)
    asked = {"step": step, "kind": kind, "first": first, "last": last, "reference": reference}
    return see(f"/payments?{urlencode({name: value for name, value in asked.items() if value})}#all")


@router.get("/payments/payment")
def payment(user: PaymentsReader, reference: Text, kind: Kind = Kind.WITHDRAWAL, exchange: Text = "") -> Response:
    """Show one payment and all that happened to it."""
    return _payment_page(user, Which(reference=clean(reference), kind=kind, exchange=clean(exchange)))


def which_is_meant(reference: Typed, kind: Annotated[Kind, Form()], exchange: Typed) -> Which:
    """Return the payment that a form is about."""
    return Which(reference=clean(reference), kind=kind, exchange=clean(exchange))


Meant = Annotated[Which, Depends(which_is_meant)]


@router.post("/payments/hold", dependencies=[OurForm])
def hold(user: Settler, which: Meant, why: Why) -> Response:
    """Take a payment out of every task's hands."""
    return _decide(user, which, why, lambda settling: settling.hold(which, why=why))


@router.get("/payments/unbegun")
def unbegun(user: Settler) -> Response:
    """Ask for a payment that no task has begun, to be held before one does."""
    return _unbegun_page(user)


@router.post("/payments/unbegun", dependencies=[OurForm])
def hold_unbegun(
    user: Settler,
    why: Why,
    reference: Typed,
    conn_id: Typed,
    amount: Typed,
    address: Typed,
    credentials_variable: Typed = "",
    user_id: Typed = "",
) -> Response:
    """Hold a payment that no task has begun; one that was begun meanwhile is held as it is."""
    key = Key(conn_id=clean(conn_id).strip(), credentials_variable=clean(credentials_variable).strip())
    new = New(amount=clean(amount).strip(), address=clean(address).strip(), user_id=clean(user_id).strip())
    typed = {"reference": reference, "why": why, **vars(key), **vars(new)}
    try:
        with opened_ledger():
            which = Which(reference=check_reference(clean(reference)), exchange=exchange_of(key.hook))
    except (PaymentError, QuoineError) as error:
        return _unbegun_page(user, refused=str(error), typed=typed)
    return _decide(
        user,
        which,
        why,
        lambda settling: settling.hold(which, why=why, key=key, new=new),
        again=lambda refused: _unbegun_page(user, refused=refused, typed=typed),
    )


@router.post("/payments/release", dependencies=[OurForm])
def release(user: Settler, which: Meant, why: Why) -> Response:
    """Give a held payment back to its task."""
    return _decide(user, which, why, lambda settling: settling.release(which, why=why))


@router.post("/payments/exists", dependencies=[OurForm])
def exists(
    user: Settler, which: Meant, why: Why, exchange_id: Typed, conn_id: Typed = "", credentials_variable: Typed = ""
) -> Response:
    """Record that the exchange carried a payment out."""
    identifier = clean(exchange_id).strip()
    key = Key(conn_id=clean(conn_id).strip(), credentials_variable=clean(credentials_variable).strip())
    typed = {"exchange_id": identifier, "why": why, **vars(key)}
    return _decide(
        user,
        which,
        why,
        lambda settling: settling.exists(which, exchange_id=identifier, why=why, key=key),
        again=lambda refused: _payment_page(user, which, refused=refused, typed=typed),
    )


@router.post("/payments/absent", dependencies=[OurForm])
def absent(user: Settler, which: Meant, why: Why) -> Response:
    """Record that the exchange did not carry a payment out."""
    return _decide(user, which, why, lambda settling: settling.absent(which, why=why))


@router.post("/payments/stop", dependencies=[OurForm])
def stop(user: Settler, why: Why) -> Response:
    """Stop all payments."""
    return _switch(user, why, lambda ledger: ledger.stop(who=_actor(user), why=why))


@router.post("/payments/resume", dependencies=[OurForm])
def resume(user: Settler, why: Why) -> Response:
    """Let payments go on."""
    return _switch(user, why, lambda ledger: ledger.resume(who=_actor(user), why=why))


def _actor(user: BaseUser) -> str:
    """Return who decides, as the ledger names a person: what follows " as " says that it came from the page."""
    return f"{user.get_name()} as user {user.get_id()} of Airflow's page"


def _switch(user: BaseUser, why: str, change: Callable[[Ledger], None]) -> Response:
    if not why.strip():
        raise HTTPException(422, "A reason is needed, for whoever reads the ledger later. Nothing was changed.")
    try:
        with _changing() as ledger:
            change(ledger)
    except PaymentError as error:
        return _unusable(user, error)
    return see("/payments")


def _decide(
    user: BaseUser,
    which: Which,
    why: str,
    decision: Callable[[Settling], str],
    again: Callable[[str], Response] | None = None,
) -> Response:
    """Write a decision down and show the payment; if it is refused, say why and show the form again as it was typed."""
    refused = "" if why.strip() else "A reason is needed, for whoever reads the ledger later. Nothing was changed."
    if not refused:
        try:
            with _changing() as ledger:
                decision(Settling(ledger=ledger, who=_actor(user), user_id=str(user.get_id())))
                return see(payment_path(which.find(ledger).order))
        except LedgerUnusableError as error:
            return _unusable(user, error)
        except (PaymentError, QuoineError) as error:
            refused = str(error)
    return again(refused) if again else _payment_page(user, which, refused=refused, typed={"why": why})


@contextmanager
def _changing() -> Iterator[Ledger]:
    """Open the ledger for a decision, which wipes typed codes as each command does."""
    wipe_in_passing()
    with opened_ledger() as ledger:
        yield ledger


def _unbegun_page(user: BaseUser, *, refused: str = "", typed: dict[str, str] | None = None) -> Response:
    return page("unbegun.html", user=user, status=409 if refused else 200, refused=refused, typed=typed or {})


def _payment_page(user: BaseUser, which: Which, *, refused: str = "", typed: dict[str, str] | None = None) -> Response:
    try:
        with opened_ledger() as ledger:
            found = _found(ledger, which)
            told = history.tell(ledger, found.order)
            page_at_exchange = history.page_at_exchange(found)
    except PaymentError as error:
        return _unusable(user, error)
    task = Task.named(found.task)
    started = starters([task] if task else [])
    user_id = str(user.get_id())
    in_flight = found.in_doubt_until is not None and datetime.now(UTC) < found.in_doubt_until
    by_a_person = found.step == Step.SENT and told.events.may_be_corrected
    late_id = told.events.another_id(found.exchange_id)
    return page(
        "payment.html",
        user=user,
        status=409 if refused else 200,
        payment=found,
        order=found.order,
        told=told,
        in_words=in_words,
        task=task,
        asked_by=started.get((task.dag_id, task.run_id), told.events.asked_by) if task else told.events.asked_by,
        page_at_exchange=page_at_exchange,
        refused=refused,
        typed=typed or {},
        in_flight=in_flight,
        twice=paid_twice(late_id) if late_id else "",
        settles=may_settle(user),
        may_hold=(found.step in SENDABLE or found.step in IN_DOUBT or by_a_person) and not in_flight,
        may_exist=found.step in IN_DOUBT or found.step in (Step.HELD, Step.SENT),
        may_be_absent=(found.step in IN_DOUBT or told.events.may_be_taken_back) and not in_flight,
        is_own_word=bool(told.events.said_absent) and told.events.needs_second_person(_actor(user), user_id),
    )


def _found(ledger: Ledger, which: Which) -> Payment:
    ledger.check()
    try:
        return which.find(ledger)
    except LedgerUnusableError:
        raise
    except PaymentError as error:
        raise HTTPException(404, str(error)) from None


def _questions(ledger: Ledger, user: BaseUser) -> list[dict[str, Any]]:
    """Return the open questions that the person may answer, with the payments that they are about."""
    person = Person(user_id=str(user.get_id()), name=user.get_name())
    manager = get_auth_manager()
    found = open_questions(
        person,
        may_answer=cache(lambda dag_id: may_answer(user, dag_id)),
        is_assigned=lambda users: manager.is_authorized_hitl_task(assigned_users=users, user=user),
    )
    about = overview.payments_asked_about(ledger, [question.actor for question in found])
    rows = []
    for question in found:
        order, events = about.get(question.actor, (None, History()))
        # Nobody approves twice, nor what that person has asked for.
        cannot = events.has_asked(person.name) or any(is_same(event, person) for event in events.approvals)
        if question.asks_for != APPROVAL or not cannot:
            rows.append({"question": question, "order": order})
    return rows


def _day(text: str, *, after: timedelta = timedelta(0)) -> datetime | None:
    if not text.strip():
        return None
    try:
        day = date.fromisoformat(text.strip())
        return datetime(day.year, day.month, day.day, tzinfo=UTC) + after
    except (ValueError, OverflowError):
        raise HTTPException(422, f"{text!r:.40} is no day. Write one such as 2026-11-26.") from None


def _unusable(user: BaseUser, error: PaymentError) -> Response:
    return page("ledger.html", user=user, status=503, words=str(error))
