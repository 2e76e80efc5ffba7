"""
A command that never outlives its starter, even if the starter is killed.

A process group is not enough: Airflow gives each task a group of its own, and a killed starter cannot signal any group.
So the command runs under a small supervisor (this file as a script). The supervisor adopts all descendants of the
command and ends them when the pipe to the starter closes, which SIGKILL causes too.
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
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

PR_SET_CHILD_SUBREAPER = 36
NICENESS_OF_SESSION = Path("/proc/self/autogroup")
#: Seconds from SIGTERM to SIGKILL; stopping a whole Airflow was seen to take 4 s.
STOP_TIMEOUT = 10.0


class SupervisedProcess:
    """
    Starts a command under a supervisor.

    :param command: program and arguments
    :param env: the whole environment
    :param cwd: working directory
    :param console: file to which standard output and standard error are appended
    :param stop_timeout: seconds from SIGTERM to SIGKILL
    :param nice: how much nicer than its starter it is to all else on the machine, from 0 to 19
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        console: Path,
        stop_timeout: float = STOP_TIMEOUT,
        nice: int = 0,
    ) -> None:
        self.console = console
        self._stop_timeout = stop_timeout
        with console.open("ab") as output:
            self._supervisor = subprocess.Popen(
                [sys.executable, __file__, str(stop_timeout), str(nice), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> SupervisedProcess:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ended(self) -> bool:
        """Whether the command and all its descendants have ended."""
        return self._supervisor.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """List the command and its descendants that are running, without the supervisor."""
        try:
            return psutil.Process(self._supervisor.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        """End the command and all its descendants, and wait until they are gone."""
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        self._supervisor.wait(timeout=self._stop_timeout + 2 * STOP_TIMEOUT)

    def wait(self) -> int:
        """
        Wait until the command has ended by itself and its descendants are gone.

        :return: the command's exit code; 128 plus the signal's number if a signal ended it
        """
        return self._supervisor.wait()


def _reap() -> dict[int, int]:
    """Reap ended children, adopted ones included; return their exit codes (negative: a signal) by pid."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def _end_descendants(stop_timeout: float) -> None:
    """Send SIGTERM to all descendants, then SIGKILL to those that have not ended in time."""
    myself = psutil.Process()
    kill_at = time.monotonic() + stop_timeout
    signalled: set[int] = set()
    while descendants := myself.children(recursive=True):
        too_late = time.monotonic() > kill_at
        for process in descendants:
            if too_late or process.pid not in signalled:
                signalled.add(process.pid)
                try:
                    process.send_signal(signal.SIGKILL if too_late else signal.SIGTERM)
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.05)
        _reap()


def _be_nicer(nice: int) -> None:
    """
    Make this process nicer, and its session as nice as it is.

    Linux shares the processor among sessions first (autogroup), and by niceness only within each: beside another
    session, nice processes would get as much as any.
    """
    if niceness := os.nice(nice):
        # There is none on some kernels, and some containers may not write it.
        with suppress(OSError):
            for _ in range(50):
                try:
                    NICENESS_OF_SESSION.write_text(str(niceness))
                    break
                except BlockingIOError:
                    # Linux takes one in a tenth of a second, from all users but root.
                    time.sleep(0.1)


def supervise(command: list[str], *, stop_timeout: float, nice: int) -> int:
    """
    Run the command until it ends or standard input closes; then end its descendants.

    :param stop_timeout: seconds from SIGTERM to SIGKILL
    :param nice: how much nicer than its starter this process is, and all that it starts
    :return: the command's exit code, as a shell reports it; 0 if standard input closed first
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
    _be_nicer(nice)
    devnull = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=devnull)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while child not in (ended := _reap()) and not select.select([sys.stdin], [], [], 0.2)[0]:
        pass
    _end_descendants(stop_timeout)
    code = ended.get(child, 0)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[3:], stop_timeout=float(sys.argv[1]), nice=int(sys.argv[2])))
