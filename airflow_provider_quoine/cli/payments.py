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
from dataclasses import replace

from airflow.models.variable import Variable
from airflow.sdk.exceptions import AirflowNotFoundException
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_quoine.cli.exports import Period, export, faults_of_export, tie_of
from airflow_provider_quoine.cli.terminal import as_server, say, store_errors
from airflow_provider_quoine.cli.typed_codes import wipe_typed_codes
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineNotFoundError
from airflow_provider_quoine.exchange.models import WithdrawalOrder
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.payments.configuration import PIN, open_ledger, read_pin, write_pin
from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.records import Head, Order, Payment
from airflow_provider_quoine.payments.refusals import PaymentError
from airflow_provider_quoine.payments.schema import Kind
from airflow_provider_quoine.payments.users import user_reference
from airflow_provider_quoine.payments.withdrawals import differs, exchange_of, ledger_order, look_up

WRITTEN = "Written. Clear the task and it goes on from there."


class ModelPin:
    """Airflow's memory of the ledger, read and written in Airflow's database."""

    def read(self) -> Head | None:
        """Return the ledger's last event that Airflow has seen; None before the first."""
        return read_pin(Variable.get(PIN, default_var=None))

    def write(self, head: Head) -> None:
        """Remember a ledger's last event."""
        Variable.set(PIN, write_pin(head), description="The ledger of payments, as this Airflow has seen it last.")


def list_(args: Namespace) -> None:
    """Print the payments that are not final, the oldest first; with ``--all`` the others too."""
    with _ledger() as ledger:
        stopped_why = ledger.check()
        payments = ledger.all() if args.all else ledger.unfinished()
    if stopped_why:
        say(f"Payments are stopped: {stopped_why}. See: airflow quoine payments resume")
    for payment in payments:
        say(f"{payment.step:9} {payment.order.kind:10} {_details(payment.order)}  {_found_in(payment)}")
    say(f"{len(payments)} payments." if len(payments) != 1 else "1 payment.")


def show_(args: Namespace) -> None:
    """
    Print a payment and its events.

    :raises SystemExit: if there is none.
    """
    with _ledger() as ledger:
        ledger.check()
        payment = _find(ledger, args)
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
    for event in history:
        data = json.dumps({name: value for name, value in event.data.items() if value}, ensure_ascii=False)
        say(f"{event.number:>6}  {event.at.isoformat(timespec='seconds')}  {event.event}  by {event.actor}  {data}")


def hold_(args: Namespace) -> None:
    """
    Take a payment out of every task's hands, also one that no task has begun.

    :raises SystemExit: as :meth:`.Ledger.hold` refuses.
    """
    with _ledger() as ledger:
        ledger.hold(_order_to_hold(ledger, args), who=_person(), why=args.why)
    say(
        "Held. No task sends it. Pay it elsewhere, then record it: airflow quoine payments exists. Or give it back: "
        "airflow quoine payments release."
    )


def release_(args: Namespace) -> None:
    """
    Give a held payment back to its task.

    :raises SystemExit: as :meth:`.Ledger.release` refuses.
    """
    with _ledger() as ledger:
        ledger.release(_find(ledger, args).order, who=_person(), why=args.why)
    say(WRITTEN)


def exists_(args: Namespace) -> None:
    """
    Record that the exchange carried a payment out; amount and address are compared if a connection is given.

    :raises SystemExit: if they differ, or as :meth:`.Ledger.exists` refuses.
    """
    with _ledger() as ledger:
        order = _find(ledger, args).order
        said = _compare(order, args)
        if args.conn_id:
            order = replace(order, conn_id=args.conn_id, credentials_variable=args.credentials_variable or "")
        ledger.exists(order, exchange_id=args.identifier, who=_person(), why=args.why)
    say(said)
    say(WRITTEN)


def absent_(args: Namespace) -> None:
    """
    Record that the exchange did not carry a payment out.

    :raises SystemExit: as :meth:`.Ledger.absent` refuses.
    """
    with _ledger() as ledger:
        is_settled = ledger.absent(_find(ledger, args).order, who=_person(), why=args.why)
    say(
        WRITTEN
        if is_settled
        else "Noted. People have approved this payment, so a second person has to give the same command."
    )


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
        with as_server():
            _wipe_typed_codes()
            yield open_ledger(pin=ModelPin())
    except (PaymentError, QuoineError) as refusal:
        raise SystemExit(str(refusal)) from None
    except AirflowNotFoundException as error:
        raise SystemExit(f"{error}. Nothing was changed.") from None
    except SQLAlchemyError as error:
        raise SystemExit(f"A database cannot be used, so nothing was changed: {error}") from None


def _wipe_typed_codes() -> None:
    try:
        wipe_typed_codes()
    except SQLAlchemyError as error:
        # A stop must not wait for it.
        say(f"Codes that were typed in vain could not be wiped from Airflow's tables: {error}")


def _person() -> str:
    """Return who gives the command: the account, and who has become it with sudo."""
    try:
        account = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container may run as a number that has no name.
        account = str(os.getuid())
    before = os.environ.get("SUDO_USER")
    return f"{before} as {account}" if before else account


def _reference(ledger: Ledger, args: Namespace) -> str:
    reference = str(args.reference).strip()
    return user_reference(ledger, reference) if args.kind == Kind.USER and "@" in reference else reference


def _find(ledger: Ledger, args: Namespace) -> Payment:
    reference = _reference(ledger, args)
    found = [
        payment
        for payment in ledger.named(reference, Kind(args.kind))
        if args.exchange in (None, payment.order.exchange)
    ]
    if not found:
        raise SystemExit(
            f"There is no payment {reference!r} of kind {args.kind} in the ledger. Nothing was changed. See: airflow "
            "quoine payments list --all"
        )
    if len(found) > 1:
        exchanges = ", ".join(payment.order.exchange for payment in found)
        raise SystemExit(f"Several exchanges have it: {exchanges}. Nothing was changed. Name one with --exchange.")
    return found[0]


def _order_to_hold(ledger: Ledger, args: Namespace) -> Order:
    """Return the order of a payment that may not have been begun yet."""
    if args.conn_id and not args.exchange:
        # A reference is unique at one exchange only.
        args.exchange = exchange_of(QuoineHook(args.conn_id))
    begun = any(
        args.exchange in (None, payment.order.exchange)
        for payment in ledger.named(_reference(ledger, args), Kind(args.kind))
    )
    return _find(ledger, args).order if begun or args.kind == Kind.USER else _new_order(args)


def _new_order(args: Namespace) -> Order:
    if not (args.conn_id and args.amount and args.address):
        raise SystemExit(
            f"No task has begun {args.reference!r}. Nothing was changed. To hold it all the same, give --conn-id, "
            "--amount and --address, and --credentials-variable and --user-id if its task has them."
        )
    order = ledger_order(
        hook=QuoineHook(args.conn_id, credentials_variable=args.credentials_variable),
        reference=args.reference,
        user_id=args.user_id,
        order=WithdrawalOrder.parse(amount=args.amount, address=args.address),
    )
    if args.exchange not in (None, order.exchange):
        raise SystemExit(
            f"Connection {args.conn_id!r} leads to {order.exchange}, not to {args.exchange}. Nothing was changed."
        )
    return order


def _compare(order: Order, args: Namespace) -> str:
    """Return what was compared, for the person."""
    if order.kind != Kind.WITHDRAWAL or not args.conn_id:
        return "It was not compared with the exchange; a withdrawal's task does so before it goes on."
    hook = QuoineHook(args.conn_id, credentials_variable=args.credentials_variable)
    if exchange_of(hook) != order.exchange:
        raise SystemExit(f"Connection {args.conn_id!r} leads to {exchange_of(hook)}, not to {order.exchange}.")
    try:
        withdrawal = look_up(hook, args.identifier)
    except QuoineNotFoundError as error:
        raise SystemExit(f"{error} Nothing was changed. Without --conn-id the id is recorded as it is.") from None
    except QuoineError as error:
        return f"It could not be compared with the exchange: {error}"
    if difference := differs(withdrawal, WithdrawalOrder.parse(amount=order.amount, address=order.address)):
        raise SystemExit(f"This is another withdrawal: {difference}. Nothing was changed.")
    return "Amount and address are the same at the exchange."


def _details(order: Order) -> str:
    if order.kind == Kind.USER:
        return order.reference
    details = order.details
    return f"{order.reference}: {details['amount']} BTC to {details['address']}, account {details['account']}"


def _found_in(payment: Payment) -> str:
    return f"({payment.exchange_id or payment.reason or payment.task})"
