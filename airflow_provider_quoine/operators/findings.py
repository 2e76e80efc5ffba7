"""How findings of a reconciliation are told to a person."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from airflow_provider_quoine.failures import WIDTH
from airflow_provider_quoine.payments.reconciliation import Finding, FindingKind

ADVICE = {
    FindingKind.PAID_TWICE: "Record the right id: airflow quoine payments exists REFERENCE --id ID --why WHY. If both "
    "withdrawals are of this payment, ask the exchange to stop or return one.",
    FindingKind.MISSING: "The exchange does not know the id. Look at its page for the user, or ask it. An id that a "
    "person has typed can be corrected: airflow quoine payments exists REFERENCE --id ID --why WHY.",
    FindingKind.CHANGED: "The exchange has another payment under this id than the ledger. Ask the exchange, and look "
    "into the ledger's events: airflow quoine payments show REFERENCE.",
    FindingKind.BACKWARDS: "It was further on before. Ask the exchange what happened. If the money was given back, pay "
    "it anew under a new reference.",
    FindingKind.STUCK: "Ask the exchange why it takes so long. One that a person holds: record how it ended "
    "(airflow quoine payments exists), or give it back (release).",
    FindingKind.IN_DOUBT: "Nobody knows whether it was carried out. Look it up at the exchange. If it exists: airflow "
    "quoine payments exists REFERENCE --id ID --why WHY. If it does not: absent. A user: with --kind user.",
    FindingKind.NOT_LOOKED_UP: "Correct the connection. A key that is gone: put it back into its Variable. If the "
    "connection or the Variable has another name now, give it with the id as it is: airflow quoine payments exists "
    "REFERENCE --id ID --conn-id CONNECTION --credentials-variable VARIABLE --why WHY.",
}


def table(findings: Iterable[Finding]) -> Iterator[str]:
    """Write findings for a log, a line or two each, and what to do about each kind."""
    rows = sorted(
        findings, key=lambda finding: (list(FindingKind).index(finding.kind), finding.payment.order.reference)
    )
    yield f"{'finding':14} {'reference':24} {'id':10} {'in the ledger'}"
    for row in rows:
        stands = f"{row.payment.step} {row.payment.state}".strip()
        yield f"{row.kind:14} {row.payment.order.reference:24} {row.payment.exchange_id or '-':10} {stands}"
        yield from _wrapped(row.what, indent=" " * 15)
    for kind in dict.fromkeys(row.kind for row in rows):
        yield from _wrapped(f"{kind}: {ADVICE[kind]}", indent="")


def _wrapped(text: str, *, indent: str) -> list[str]:
    # Airflow's log view does not wrap.
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent or "    ", break_on_hyphens=False)
