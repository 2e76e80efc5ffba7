"""The commands that ``airflow quoine`` adds to Airflow. Every ``airflow`` command imports this module."""

from __future__ import annotations

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command


def _reason(text: str) -> str:
    if not text.strip():
        raise ValueError("a reason is needed")
    return text


WHICH = (
    Arg(("reference",), help="The payment reference; for a new user the e-mail address or its hash"),
    Arg(("--kind",), choices=("withdrawal", "user"), default="withdrawal", help="Kind of payment (%(default)s)"),
    Arg(("--exchange",), help="The exchange's base URL, if the reference is used at several"),
)
WHY = Arg(("--why",), required=True, type=_reason, help="Why, for whoever reads the ledger later; names nobody")
IDENTIFIER = Arg(("--id",), required=True, dest="identifier", help="The exchange's id, as seen there")
CONN_ID = Arg(("--conn-id",), help="Connection of the exchange")
CREDENTIALS = Arg(("--credentials-variable",), help="Variable that holds the user's own key")
#: Of a payment that no task has begun.
NEW = (
    Arg(("--user-id",), default="", help="The user's id, if the payment's task has one"),
    Arg(("--amount",), help="Bitcoin, if no task has begun the payment yet"),
    Arg(("--address",), help="Bitcoin address, if no task has begun the payment yet"),
)
#: Name, help, and arguments.
Command = tuple[str, str, tuple[Arg, ...]]
PAYMENTS: tuple[Command, ...] = (
    (
        "list",
        "List the payments that are not final",
        (Arg(("--all",), action="store_true", help="The final ones as well"),),
    ),
    ("show", "Show a payment and all that happened to it", WHICH),
    (
        "hold",
        "Take a payment out of every task's hands, before it is paid elsewhere",
        (*WHICH, WHY, CONN_ID, CREDENTIALS, *NEW),
    ),
    ("release", "Give a held payment back to its task", (*WHICH, WHY)),
    (
        "exists",
        "Record that a payment exists: once cleared, its task goes on with it",
        (*WHICH, IDENTIFIER, WHY, CONN_ID, CREDENTIALS),
    ),
    ("absent", "Record that a payment does not exist: once cleared, its task sends", (*WHICH, WHY)),
    ("stop", "Stop all payments: from now on nothing is sent", (WHY,)),
    ("resume", "Let payments go on", (WHY,)),
    (
        "verify",
        "Name every event and payment of the ledger, or of an export, that was edited, removed or moved",
        (Arg(("--export",), help="Check this export instead, and that the ledger still has its events"),),
    ),
    (
        "export",
        "Write the ledger's events of some days as JSON Lines, and beside them what ties them to the chain",
        (
            Arg(
                ("path",), help="File to write: a path, or a URI of any object store such as s3://connection@bucket/key"
            ),
            Arg(("--from",), required=True, dest="first", help="First day, such as 2026-11-01"),
            Arg(("--to",), required=True, dest="last", help="Last day; it is in the export"),
            Arg(("--timezone",), default="UTC", help="Whose days these are, such as Asia/Tokyo (%(default)s)"),
        ),
    ),
)


CAPTURE = Arg(("path",), help="A capture's folder, or the path of its summary, in any object store")
CAPTURES: tuple[Command, ...] = (
    (
        "verify",
        "Name every part that is missing, changed or doubled, every row out of order, and gaps that do not add up",
        (Arg(("path",), help="A folder with captures in or below it, or the path of a capture's summary"),),
    ),
    (
        "report",
        "Draw coverage, gaps and spread of a capture into a picture beside it",
        (CAPTURE, Arg(("--timezone",), default="UTC", help="Zone of the time axis, such as Asia/Tokyo (%(default)s)")),
    ),
    (
        "convert",
        "Write order books as tardis.dev's CSV book_snapshot_{depth}_{interval}",
        (
            CAPTURE,
            Arg(("folder",), help="Where the CSV goes, in any object store"),
            Arg(("--depth",), type=int, help="Levels of each side; as many as were captured, 25 at most, if left out"),
        ),
    ),
)
GROUPS: tuple[tuple[str, str, tuple[Command, ...]], ...] = (
    ("payments", "The ledger of payments: withdrawals and new users", PAYMENTS),
    ("captures", "Captures of market streams: verified, drawn, converted", CAPTURES),
)


def get_quoine_cli_commands() -> list[CLICommand]:
    """Return the commands, as Airflow's provider key ``cli`` promises."""
    groups = [
        GroupCommand(
            name=group,
            help=about,
            subcommands=[
                ActionCommand(
                    name=name,
                    help=text,
                    func=lazy_load_command(f"airflow_provider_quoine.cli.{group}.{name}_"),
                    args=args,
                )
                for name, text, args in commands
            ],
        )
        for group, about, commands in GROUPS
    ]
    return [GroupCommand(name="quoine", help="Payments and captures at the Quoine exchange", subcommands=groups)]
