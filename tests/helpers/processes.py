"""A child process with its output in a file, ended by its own id."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_TIMEOUT = 15


class ChildProcess:
    """
    One running program, its stdout and stderr appended to `log_path`.

    Every verb that ends it waits for the end, so nothing outlives a test.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log_path: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        with log_path.open("ab") as log:
            # A session of its own: a Ctrl-C in the terminal ends the tests, and
            # the tests end it.
            self._popen = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=None if env is None else dict(env),
                start_new_session=True,
                user=user,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.exit_code is None

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP), its sockets staying open."""
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze()`; harmless for a running process."""
        self._popen.send_signal(signal.SIGCONT)

    def interrupt(self) -> int:
        """Send SIGINT, as Ctrl-C does, and return the exit code."""
        return self._end(signal.SIGINT)

    def terminate(self) -> int:
        """Send SIGTERM, waking it first if frozen, and return the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Send SIGKILL and return the exit code."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        self._popen.send_signal(number)
        if number is not signal.SIGKILL:
            self.thaw()
        try:
            return self._popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(STOP_TIMEOUT)
            raise AssertionError(
                f"process {self.pid} ignored {number.name} for {STOP_TIMEOUT} s"
            ) from None
