"""The rank's own program: a real pytest session that runs the tests it is told to, one at a time.

    python -m pytest_multihost_env.gang.rank CHANNEL_FD STACKS_FD

Needs pytest and the standard library.  Messages to the controller: collect-error, watch, joining, ready, report, done, internal-error, bye.
Messages from it: session, run, finish.
"""

from __future__ import annotations

import faulthandler
import io
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_multihost_env import wire
from pytest_multihost_env.gang.arrived import differing
from pytest_multihost_env.gang.plain import plain

_ABORTED = re.compile(r"^Abort\((-?\d+)\) on node \d+ \(rank \d+ in comm", re.MULTILINE)


class Line:
    """The channel to the supervisor, blocking."""

    def __init__(self, descriptor: int) -> None:
        self._sock = socket.socket(fileno=descriptor)
        self._decoder = wire.Decoder()
        self._waiting: list[wire.Message] = []
        self._pid = os.getpid()

    def say(self, kind: str, **fields: object) -> None:
        """Send one message; a child that a test has forked, and that came back into pytest, ends instead."""
        if os.getpid() != self._pid:
            os._exit(1)
        self._sock.sendall(wire.encode({"ev": kind, **fields}))

    def hear(self) -> wire.Message:
        """Return the next order; the end of the channel is an order to finish."""
        while not self._waiting:
            data = self._sock.recv(1 << 16)
            if not data:
                return {"do": "finish"}
            self._waiting = self._decoder.feed(data)
        return self._waiting.pop(0)


class RankPlugin:
    """Replaces pytest's run loop by the controller's orders and sends every report home."""

    def __init__(self, line: Line, session: wire.Message) -> None:
        self.line = line
        self.rank = int(session["rank"])
        self.size = int(session["size"])
        self.mpi = bool(session["mpi"])
        self.host = str(session["host"])
        self.hosts = tuple(session["hosts"])
        self.local_rank = int(session["local_rank"])
        self._config: pytest.Config
        self._secrets = [_value(name) for name in session["secrets"]]
        # Looked at before a conftest can have changed anything.
        self._differs = differing(session["planned"], os.environ)
        self._sequence = 0
        self.told_of_failure = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Remember the configuration: serialising a report is one of its hooks."""
        self._config = config

    def pytest_make_parametrize_id(self, val: object) -> str | None:
        """Name a test that is parametrized with a secret as the controller does."""
        if not self._secrets:
            return None
        from pytest_multihost_env.redact import Redactor

        return Redactor(self._secrets).name(val)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Send what could not be collected."""
        if report.failed:
            self.told_of_failure = True
            self.line.say("collect-error", nodeid=report.nodeid, text=plain(report.longreprtext))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Say that the rank is ready, then obey until told to finish."""
        self.line.say("watch", fds=[1, 2])
        items = {item.nodeid: item for item in session.items}
        if self.mpi:
            self.line.say("joining")
        self.line.say(
            "ready", ids=list(items), differs=plain(self._differs), world=_world(self.size) if self.mpi else {}
        )
        while (order := self.line.hear())["do"] != "finish":
            self._sequence = order["seq"]
            item = items[order["id"]]
            following = items.get(order["next"]) if order["next"] else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self.line.say("done", seq=self._sequence)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Tear down what was kept for a test that was announced and then did not come."""
        item.session._setupstate.teardown_exact(item)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send one report as plain values."""
        _die_if_aborted(report)
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self.line.say("report", seq=self._sequence, data=plain(data))
        self.told_of_failure = self.told_of_failure or report.failed

    def pytest_internalerror(self, excrepr: object) -> None:
        """Send what broke this session: no terminal of its own shows it."""
        self.line.say("internal-error", text=plain(excrepr))


def _value(secret: str) -> str:
    """Return the value of a secret that this rank has, in a variable or in a file; "" of one that it has not."""
    if path := os.environ.get(f"{secret}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""
    return os.environ.get(secret, "")


def _die_if_aborted(report: pytest.TestReport) -> None:
    """End this process when the test has called MPI_Abort and lives on.

    MPICH's MPI_Abort asks the process manager to kill everybody and returns; a quick test could still pass.
    """
    if report.when != "setup" and (match := _ABORTED.search(report.capstderr)):
        os._exit(int(match[1]) & 0xFF or 1)


def _world(expected: int) -> dict[str, object]:
    """Return size, rank and library of the MPI world, or why there is none.

    After collection, so that a suite's own `mpi4py.rc` settings have taken effect.
    """
    try:
        import mpi4py
    except ImportError as error:
        return {"missing": str(error)}
    if not mpi4py.rc.initialize:
        return {"size": expected, "library": "not initialised, as mpi4py.rc asks"}
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return {"broken": str(error)}
    return {
        "size": MPI.COMM_WORLD.size,
        "rank": MPI.COMM_WORLD.rank,
        "library": MPI.Get_library_version().split("\n")[0],
    }


def configure(session: wire.Message, line: Line) -> pytest.Config:
    """Return the configuration of this rank's session: the controller's options, without what only one may do."""
    # Made when something is written to it: most ranks write nothing, and one that is killed cannot clear up.
    private = Path(tempfile.gettempdir()) / f"multihost-rank{session['rank']}-{secrets.token_hex(8)}"
    options: dict[str, Any] = dict(session["options"])
    # The controller alone writes the cache, selects tests, and talks to the terminal.
    options["override_ini"] = [*(options.get("override_ini") or []), f"cache_dir={private / 'cache'}"]
    options["plugins"] = [*(options.get("plugins") or []), "no:terminal"]
    if options.get("basetemp"):
        own = Path(options["basetemp"]) / f"rank{session['rank']}-{os.getpid()}"
        own.parent.mkdir(parents=True, exist_ok=True)  # on another host, or below a directory that xdist only named
        options["basetemp"] = str(own)
    if session.get("cwd_on_path"):
        sys.path.insert(0, "")
    config = pytest.Config.fromdictargs(options, list(session["args"]))
    config.pluginmanager.register(RankPlugin(line, session), "multihost_env_rank")
    config.add_cleanup(lambda: _remove(private))
    return config


def _remove(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


def main(argv: Sequence[str]) -> int:
    """Run the session that the controller describes; return 0, or what the session made of itself."""
    line = Line(int(argv[0]))
    with os.fdopen(int(argv[1]), "wb", buffering=0, closefd=False) as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
        # Not a terminal, so Python would keep what is printed until the end, or lose it in a crash.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)
        session = line.hear()
        if session["do"] != "session":
            return 0
        config = configure(session, line)
        code = int(config.hook.pytest_cmdline_main(config=config))
        config._ensure_unconfigure()
        rank = config.pluginmanager.getplugin("multihost_env_rank")
        # Failed tests are in the reports: they are no trouble of the session itself.
        if code == pytest.ExitCode.NO_TESTS_COLLECTED or (
            code == pytest.ExitCode.TESTS_FAILED and rank.told_of_failure
        ):
            code = 0
        # Said before MPI is finalised: a rank that ends too early may wait there for the others for ever.
        line.say("bye", code=code)
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
