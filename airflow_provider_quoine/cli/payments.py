"""
The commands that show and settle payments in the ledger.

They run on a host with Airflow's configuration that reaches Airflow's database, because Airflow's memory of the ledger
is there, and connections may be. Each of them wipes codes that were typed for tasks which could not take them.
"""

from __future__ import annotations

import json
import os
import pwd
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_quoine.cli.exports import Period, export, faults_of_export, tie_of
from airflow_provider_quoine.cli.terminal import say, store_errors
from airflow_provider_quoine.desk.opening import opened_ledger, wipe_in_passing
from airflow_provider_quoine.desk.settling import WRITTEN, Key, New, Settling, Which
from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Order, Payment
from airflow_provider_quoine.payments.refusals import PAID_TWICE, PaymentError, paid_twice
from airflow_provider_quoine.payments.schema import Kind


def list_(args: Namespace) -> None:
    """Print the payments that are not final or may be paid twice, the oldest first; with ``--all`` the others too."""
    with _ledger() as ledger:
        stopped_why = ledger.check()
        payments = ledger.all() if args.all else ledger.unfinished()
        late_ids = ledger.late_ids()
    if stopped_why:
        say(f"Payments are stopped: {stopped_why}. See: airflow quoine payments resume")
    for payment in payments:
        twice = f"  {PAID_TWICE}" if payment.order in late_ids else ""
        say(f"{payment.step:9} {payment.order.kind:10} {_details(payment.order)}  {_found_in(payment)}{twice}")
    say(f"{len(payments)} payments." if len(payments) != 1 else "1 payment.")


def show_(args: Namespace) -> None:
    """
    Print a payment and its events.

    :raises SystemExit: if there is none.
    """
    with _ledger() as ledger:
        ledger.check()
        payment = _which(args).find(ledger)
        history = ledger.history(payment.order)
    order, until = payment.order, payment.in_doubt_until
    lines = {
        "reference": order.reference,
        "kind": order.kind,
        "exchange": order.exchange,
        **order.details,
        "step": payment.step,
        "why": payment.reason,
        "id": payment.exchange_id,
        "in doubt until": until.isoformat(timespec="seconds") if until else None,
        "task": payment.task,
    }
    for name, value in lines.items():
        if value:
            say(f"{name:15} {value}")
    if late_id := history.another_id(payment.exchange_id):
        say(f"{PAID_TWICE:15} {paid_twice(late_id)}")
    for event in history:
        data = json.dumps({name: value for name, value in event.data.items() if value}, ensure_ascii=False)
        say(f"{event.number:>6}  {event.at.isoformat(timespec='seconds')}  {event.event}  by {event.actor}  {data}")


def hold_(args: Namespace) -> None:
    """
    Take a payment out of every task's hands, also one that no task has begun.

    :raises SystemExit: as :meth:`.Settling.hold` refuses.
    """
    new = New(amount=args.amount or "", address=args.address or "", user_id=args.user_id)
    with _settling() as settling:
        said = settling.hold(_which(args), why=args.why, key=_key(args), new=new)
    say(said)


def release_(args: Namespace) -> None:
    """
    Give a held payment back to its task.

    :raises SystemExit: as :meth:`.Settling.release` refuses.
    """
    with _settling() as settling:
        said = settling.release(_which(args), why=args.why)
    say(said)


def exists_(args: Namespace) -> None:
    """
    Record that the exchange carried a payment out; amount and address are compared if a connection is given.

    :raises SystemExit: as :meth:`.Settling.exists` refuses.
    """
    with _settling() as settling:
        said = settling.exists(_which(args), exchange_id=args.identifier, why=args.why, key=_key(args))
    say(said)
    say(WRITTEN)


def absent_(args: Namespace) -> None:
    """
    Record that the exchange did not carry a payment out.

    :raises SystemExit: as :meth:`.Settling.absent` refuses.
    """
    with _settling() as settling:
        said = settling.absent(_which(args), why=args.why)
    say(said)


def stop_(args: Namespace) -> None:
    """Stop all payments."""
    with _ledger() as ledger:
        ledger.stop(who=_person(), why=args.why)
    say("Stopped. Nothing is sent from now on. Requests that had left are not called back.")


def resume_(args: Namespace) -> None:
    """Let payments go on."""
    with _ledger() as ledger:
        ledger.resume(who=_person(), why=args.why)
    say("Payments go on. Clear the tasks that were stopped.")


def verify_(args: Namespace) -> None:
    """
    Check the chain of events, in the ledger or in an export.

    :raises SystemExit: if an event was edited, removed, added or moved.
    """
    whole = "The chain of events is whole, and every payment follows from it."
    with _ledger() as ledger, store_errors(args.export):
        if not args.export:
            faults = ledger.faults()
        elif not (faults := list(faults_of_export(ledger, args.export))):
            tie = tie_of(args.export)
            whole = (
                f"The export is whole, and the ledger has its events: {tie.count} from {tie.since} until {tie.until} "
                f"({tie.timezone})."
            )
    for fault in faults:
        say(fault)
    what = "export" if args.export else "ledger"
    if faults:
        raise SystemExit(f"{len(faults)} faults: the {what} was changed by other means than this provider.")
    say(whole)


def export_(args: Namespace) -> None:
    """
    Write the events of some days to any object store.

    :raises SystemExit: if the days are none, or the store refuses.
    """
    try:
        period = Period.parse(args.first, args.last, args.timezone)
    except ValueError as error:
        raise SystemExit(f"This is no period: {error}. Nothing was written.") from None
    with _ledger() as ledger, store_errors(args.path):
        tie = export(ledger, args.path, period, who=_person())
    say(
        f"{tie.count} events from {tie.since} until {tie.until} ({tie.timezone}) are in {args.path}. Beside it, "
        ".head.json ties them to the chain. Check both: airflow quoine payments verify --export"
    )


@contextmanager
def _ledger() -> Iterator[Ledger]:
    try:
        if failed := wipe_in_passing():
            say(failed)
        with opened_ledger() as ledger:
            yield ledger
    except (PaymentError, QuoineError) as refusal:
        raise SystemExit(str(refusal)) from None


@contextmanager
def _settling() -> Iterator[Settling]:
    with _ledger() as ledger:
        yield Settling(ledger=ledger, who=_person())


def _which(args: Namespace) -> Which:
    return Which(reference=str(args.reference), kind=Kind(args.kind), exchange=args.exchange or "")


def _key(args: Namespace) -> Key:
    return Key(conn_id=args.conn_id or "", credentials_variable=args.credentials_variable or "")


def _person() -> str:
    """Return who gives the command: the account, and who has become it with sudo."""
    try:
        account = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run as a number that has no name.
        account = str(os.getuid())
    before = os.environ.get("SUDO_USER")
    return f"{before} as {account}" if before else account


def _details(order: Order) -> str:
    if order.kind == Kind.USER:
        return order.reference
    details = order.details
    return f"{order.reference}: {details['amount']} BTC to {details['address']}, account {details['account']}"


def _found_in(payment: Payment) -> str:
    return f"({payment.exchange_id or payment.reason or payment.task})"
