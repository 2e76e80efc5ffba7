"""
Runs Airflow's commands in forks of one process, because each process takes two seconds of processor to import Airflow.

As a script, it is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.standalone import Standalone


class Commands:
    """
    Runs commands in an Airflow's environment within the ``with`` block.

    :param airflow: the Airflow
    """

    def __init__(self, airflow: Standalone) -> None:
        # It ends when its standard input is closed, so it outlives nobody.
        self._forker = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=airflow.env,
            cwd=airflow.home,
            text=True,
        )

    def __enter__(self) -> Commands:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._forker.communicate()

    def run(self, *commands: Sequence[str]) -> str:
        """
        Run commands one after another in one fork.

        :param commands: each without its first word, ``airflow``
        :return: their standard output
        :raises subprocess.CalledProcessError: if one fails; ``stderr`` has its messages
        """
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        print(json.dumps(commands), file=self._forker.stdin, flush=True)
        code, said, complained = json.loads(self._forker.stdout.readline())
        if code:
            raise subprocess.CalledProcessError(code, str(commands), said, complained)
        return str(said)


def _fork(main: Callable[[], None], commands: list[list[str]]) -> tuple[int, str, str]:
    """Run commands in a fork; return its exit code, its standard output and its standard error."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained, open(os.devnull) as nothing:
        child = os.fork()
        if child == 0:
            for number, file in enumerate((nothing, said, complained)):
                os.dup2(file.fileno(), number)
            for command in commands:
                sys.argv = ["airflow", *command]
                main()
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (said, complained):
            file.seek(0)
        return code, said.read(), complained.read()


def _serve() -> None:
    """Run the commands that standard input asks for."""
    from airflow.__main__ import main

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_fork(main, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
