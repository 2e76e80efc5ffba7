"""The commands that ``airflow quoine`` adds to Airflow; it is read whenever somebody runs ``airflow``."""

from __future__ import annotations

from functools import partial

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

WHERE = (
    Arg(("--dag-id",), required=True, help="The task's DAG"),
    Arg(("--run-id",), required=True, help="The task's DAG run"),
    Arg(("--task-id",), required=True, help="The task"),
    Arg(("--map-index",), type=int, default=-1, help="The task's map index, if it is mapped"),
)
IDENTIFIER = Arg(("--id",), required=True, dest="identifier", help="The exchange's id, as seen there")

#: Group, what its records are about, and the key under which they stand in the task state store.
GROUPS = (("withdrawals", "a withdrawal", "quoine_withdrawal"), ("users", "a user", "quoine_onboarding_user"))


def get_quoine_cli_commands() -> list[CLICommand]:
    """Return the commands, as Airflow's provider key ``cli`` promises."""
    return [
        GroupCommand(
            name="quoine",
            help="Settle what a task of the Quoine provider could not know",
            subcommands=[_group(*group) for group in GROUPS],
        )
    ]


def _group(name: str, what: str, key: str) -> GroupCommand:
    load = lazy_load_command
    module = "airflow_provider_quoine.cli.records"
    return GroupCommand(
        name=name,
        help=f"Records of tasks that create {what} at the exchange",
        subcommands=[
            ActionCommand(
                name="show",
                help="Show what a task has on record",
                func=partial(load(f"{module}.show"), key=key),
                args=WHERE,
            ),
            ActionCommand(
                name="exists",
                help=f"Tell a task that the exchange has {what} of it: once cleared, it goes on with that one",
                func=partial(load(f"{module}.exists"), key=key),
                args=(*WHERE, IDENTIFIER),
            ),
            ActionCommand(
                name="absent",
                help="Tell a task that the exchange has nothing of it: once cleared, it sends",
                func=partial(load(f"{module}.absent"), key=key),
                args=WHERE,
            ),
        ],
    )
