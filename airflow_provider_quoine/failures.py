"""
Failures in words, for Airflow's log view, which neither wraps nor shortens.

Each begins with three lines: what happened, whether anything was done at the exchange, what to do next. Then come the
details. No line has more than :data:`WIDTH` characters, but for a command that is longer.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.exceptions import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow_provider_quoine.payments.records import Payment

WIDTH = 84
"""Characters of a line: about as many are seen at 1280 pixels, with Airflow's side panel open."""
_COMMAND = re.compile(r"airflow quoine .+? --why WHY")
_SIGN = "\0"
"""Stands for a sign of a command."""

NOTHING_SENT = "Nothing was sent, so nothing was done at the exchange."
ONLY_READ = "Nothing was changed at the exchange: this only reads."
SETTLE = "Look it up at the exchange, then settle it on the page Quoine, or as said below."


class Outline(NamedTuple):
    """The three lines of a failure."""

    happened: str
    done: str
    next: str


#: By the name of the error's class, or of the nearest class above it.
OUTLINES = {
    "QuoineError": Outline("It did not work.", NOTHING_SENT, "Do what the words below say."),
    "QuoineInputError": Outline(
        "The input or a setting is wrong.",
        NOTHING_SENT,
        "Wrong input: start a new run. A wrong setting: correct it, then clear this task.",
    ),
    "QuoineApplicationsError": Outline(
        "The place of applications does not answer.", NOTHING_SENT, "Bring it back, then clear this task."
    ),
    "QuoineBudgetError": Outline(
        "No request was free in the request budget.", NOTHING_SENT, "Wait, then clear this task if it does not retry."
    ),
    "QuoineTooLateError": Outline(
        "The request came too late, or was stopped, before its first byte.",
        NOTHING_SENT,
        "Do what the words below say.",
    ),
    "QuoineConnectionError": Outline(
        "The exchange could not be reached.", NOTHING_SENT, "Check the network and the connection's base URL."
    ),
    "QuoineAnswerLostError": Outline(
        "The exchange's answer was lost.", "Nobody knows yet whether it was carried out.", SETTLE
    ),
    "QuoineServerError": Outline(
        "The exchange answered with an error that is no refusal.",
        "Nobody knows yet whether it was carried out.",
        SETTLE,
    ),
    "QuoineUnreadableAnswerError": Outline(
        "The exchange said yes, but its answer cannot be read.", "It was very likely carried out.", SETTLE
    ),
    "QuoineResponseError": Outline(
        "The exchange's answer is no success.", "Nothing was done at the exchange.", "Do what the words below say."
    ),
    "QuoineRefusedError": Outline(
        "The exchange refused.", "Nothing was done at the exchange.", "Correct what it names, then clear this task."
    ),
    "QuoineUnauthorizedError": Outline(
        "The exchange refused the key, the code or the password.",
        "Nothing was done at the exchange.",
        "Check the connection with Test, and the machine's clock, then clear this task.",
    ),
    "QuoineNotFoundError": Outline(
        "The exchange does not know it under this key.",
        "Nothing was done at the exchange.",
        "Check the id, whose key signs, and the base URL, then clear this task.",
    ),
    "QuoineRateLimitedError": Outline(
        "The exchange's request limit is used up.", "Nothing was done at the exchange.", "Wait: all requests pause."
    ),
    "QuoineStreamError": Outline(
        "The market stream ended.", ONLY_READ, "Check the connection with Test, then clear this task."
    ),
    "QuoineStorageError": Outline(
        "The store did not take the files.",
        ONLY_READ,
        "Check the folder and its rights; a retry goes on with the capture.",
    ),
    "QuoineApiServerError": Outline(
        "Airflow's API server did not do what this task asked.",
        NOTHING_SENT,
        "Check the API server, then clear this task.",
    ),
    "QuoineForeignEventError": Outline(
        "The trigger is of another version than this task.",
        "A withdrawal that was sent is not sent again by clearing.",
        "Run one version everywhere, then clear this task.",
    ),
    "PaymentError": Outline("The payment cannot go on by itself.", NOTHING_SENT, "Do what the words below say."),
    "LedgerUnusableError": Outline(
        "The ledger of payments cannot be used.",
        "Nothing is sent without it; what was under way before stays in doubt.",
        "Bring its database back, then clear this task.",
    ),
    "PaymentRefusedError": Outline(
        "The ledger does not let this payment go on.",
        "This attempt sent nothing.",
        "Do what the words below say, then clear this task.",
    ),
    "PaymentInDoubtError": Outline(
        "The outcome of this payment is unknown.", "It was sent, and the exchange may have carried it out.", SETTLE
    ),
    # What a trigger says of a stream, or of a wait.
    "AirflowException": Outline(
        "The wait in the triggerer ended without a result.", ONLY_READ, "Do what the words below say; a retry may help."
    ),
}


def explain(error: Exception) -> str:
    """Return an error in lines: the three, then its own words, and what is known of the payment."""
    outline = next(OUTLINES[each.__name__] for each in type(error).__mro__ if each.__name__ in OUTLINES)
    if str(error).startswith(outline.happened):
        # An inner block has given it its lines.
        return str(error)
    if getattr(error, "only_reads", False):
        outline = outline._replace(done=ONLY_READ)
        if outline.next == SETTLE:
            outline = outline._replace(next="Clear this task to ask again.")
    payment: Payment | None = getattr(error, "payment", None)
    return _lines(outline, str(error), *(_facts(payment) if payment else ()))


def stop(happened: str, *, done: str = "Nothing was sent.", next: str, details: str = "") -> AirflowFailException:
    """Return an error that no retry would mend, in the same form."""
    failure = AirflowFailException(_lines(Outline(happened, done, next), details))
    # What led to it is in its words: Airflow would show it below, in one long line.
    failure.__suppress_context__ = True
    return failure


def in_lines(text: str) -> str:
    """Return a text in lines that Airflow's log view shows whole."""
    return "\n".join(row for line in text.splitlines() for row in _wrapped(line))


def _lines(outline: Outline, *details: str) -> str:
    rows = [textwrap.shorten(line, WIDTH) for line in outline]
    return "\n".join([*rows, *map(in_lines, filter(None, details))])


def _wrapped(line: str) -> list[str]:
    # A command stands in one line, also where that is longer, so that it can be copied; a full stop may follow it.
    commands = iter(_COMMAND.findall(line))
    whole = _COMMAND.sub(lambda command: _SIGN * min(len(command[0]), WIDTH - 1), line)
    rows = textwrap.wrap(whole, WIDTH, break_on_hyphens=False)
    return [re.sub(f"{_SIGN}+", lambda _: next(commands), row) for row in rows]


def _facts(payment: Payment) -> Iterator[str]:
    order = payment.order
    until = payment.in_doubt_until
    facts = {
        "payment": order.reference,
        "amount": f"{order.details['amount']} BTC" if order.address else "",
        "address": order.address,
        "user": order.user_id,
        "in the ledger": payment.step,
        "in doubt until": until.isoformat(timespec="seconds") if until and payment.step != "sent" else "",
        "sent by": payment.task,
    }
    yield from (f"{name}: {value}" for name, value in facts.items() if value)


@contextmanager
def in_words() -> Iterator[None]:
    """Give the errors of this package their lines; their types stay."""
    from airflow_provider_quoine.exchange.errors import QuoineError
    from airflow_provider_quoine.payments.refusals import PaymentError

    try:
        yield
    except AirflowException as error:
        if type(error) is AirflowException:
            raise AirflowException(explain(error)) from None
        raise
    except (QuoineError, PaymentError) as error:
        error.args = (explain(error),)
        raise error from None


@contextmanager
def without_retry() -> Iterator[None]:
    """
    Fail in words, and without a retry if the same request would be refused again.

    Wrong input, the exchange's refusals and the ledger's need a person, who corrects them and clears the task. A
    request limit and a failed connection are transient: they keep their error, and Airflow retries.
    """
    from airflow_provider_quoine.exchange.errors import QuoineInputError, QuoineRateLimitedError, QuoineRefusedError
    from airflow_provider_quoine.payments.refusals import PaymentError

    try:
        with in_words():
            yield
    except QuoineRateLimitedError:
        raise
    except (QuoineInputError, QuoineRefusedError, PaymentError) as error:
        raise AirflowFailException(str(error)) from None


def check_all(checks: Iterable[Callable[[], Any]]) -> list[Any]:
    """
    Make every check, so that a person learns of everything that is wrong at once.

    :return: what the checks return.
    :raises QuoineInputError: with the words of all that fail, each on a line.
    """
    from airflow_provider_quoine.exchange.errors import QuoineInputError
    from airflow_provider_quoine.payments.refusals import PaymentRefusedError

    results, faults = [], []
    for check in checks:
        try:
            results.append(check())
        except (QuoineInputError, PaymentRefusedError) as error:
            faults.append(str(error))
    if faults:
        raise QuoineInputError("\n".join(faults))
    return results
