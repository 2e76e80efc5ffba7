"""A command that cannot outlive whoever started it: whatever ends the starter, nothing of the command is left.

A process group would not do: Airflow gives each task a group of its own, and a starter that is killed can end no
group. So the command runs under a small keeper (this file as a script) that adopts all descendants and ends them
when the pipe to its starter closes, which even SIGKILL does.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

PR_SET_CHILD_SUBREAPER = 36
#: Seconds from TERM to KILL; Airflow as a whole was seen to take four.
GRACE = 10.0


class KeptProcess:
    """
    Start a command under a keeper.

    :param command: program and arguments
    :param env: the whole environment
    :param cwd: working directory
    :param console: file that takes the standard output and errors, appended
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, console: Path) -> None:
        self.console = console
        with console.open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, __file__, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> KeptProcess:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ended(self) -> bool:
        """Whether the command has ended, and everything that it had started with it."""
        return self._keeper.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """List all that runs now of the command, the keeper left out."""
        try:
            return psutil.Process(self._keeper.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        """End the command and all its descendants, and wait until they are gone."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(timeout=3 * GRACE)


def _reap() -> set[int]:
    """Collect ended children, the adopted ones too, so that none stays as a zombie."""
    ended: set[int] = set()
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.add(pid)


def _end_descendants() -> None:
    """TERM to all, and KILL to what still lives after the grace, until nothing is left."""
    myself = psutil.Process()
    kill_at = time.monotonic() + GRACE
    asked: set[int] = set()
    while descendants := myself.children(recursive=True):
        late = time.monotonic() > kill_at
        for process in descendants:
            if late or process.pid not in asked:
                asked.add(process.pid)
                try:
                    process.send_signal(signal.SIGKILL if late else signal.SIGTERM)
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.05)
        _reap()


def keep(command: list[str]) -> None:
    """Run the command until it ends or standard input closes; then end all that it left."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
    devnull = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=devnull)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while child not in _reap() and not select.select([sys.stdin], [], [], 0.2)[0]:
        pass
    _end_descendants()


if __name__ == "__main__":
    keep(sys.argv[1:])
