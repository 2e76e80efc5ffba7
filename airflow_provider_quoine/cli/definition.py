"""The commands that ``airflow quoine`` adds to Airflow. Every ``airflow`` command imports this module."""

from __future__ import annotations

from functools import partial

from airflow.cli.cli_config import ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

from airflow_provider_quoine.payments.records import RECORD_KINDS, Decision, RecordKind

TASK = (
    Arg(("--dag-id",), required=True, help="The task's DAG"),
    Arg(("--run-id",), required=True, help="The task's DAG run"),
    Arg(("--task-id",), required=True, help="The task"),
    Arg(("--map-index",), type=int, default=-1, help="The task's map index, if it is mapped"),
)
IDENTIFIER = Arg(("--id",), required=True, dest="identifier", help="The exchange's id, as seen there")


def get_quoine_cli_commands() -> list[CLICommand]:
    """Return the commands, as Airflow's provider key ``cli`` promises."""
    return [
        GroupCommand(
            name="quoine",
            help="Resolve requests to the Quoine exchange whose outcome is unknown",
            subcommands=[_group(kind) for kind in RECORD_KINDS],
        )
    ]


def _group(kind: RecordKind) -> GroupCommand:
    load = lazy_load_command
    module = "airflow_provider_quoine.cli.records"
    return GroupCommand(
        name=kind.command_group,
        help=f"Records of tasks that create {kind.command_group} at the exchange",
        subcommands=[
            ActionCommand(
                name="show",
                help="Show a task's record",
                func=partial(load(f"{module}.show"), key=kind.key),
                args=TASK,
            ),
            ActionCommand(
                name=Decision.EXISTS,
                help=f"Record that the task's {kind.noun} exists: once cleared, the task goes on with it",
                func=partial(load(f"{module}.exists"), key=kind.key),
                args=(*TASK, IDENTIFIER),
            ),
            ActionCommand(
                name=Decision.ABSENT,
                help=f"Record that the task's {kind.noun} does not exist: once cleared, the task sends",
                func=partial(load(f"{module}.absent"), key=kind.key),
                args=TASK,
            ),
        ],
    )
