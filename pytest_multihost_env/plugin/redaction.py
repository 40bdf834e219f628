"""Keeps secrets out of what a session shows and writes: reports, the terminal, the log file."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import IO, Any, TextIO

import pytest
from _pytest.junitxml import LogXML, xml_key
from _pytest.pastebin import pastebinfile_key

from pytest_multihost_env.errors import MultihostError
from pytest_multihost_env.plugin.session import MultihostSession
from pytest_multihost_env.redact import Redactor

_LEAVES = (int, float, bytes, bool, type(None))


class Redaction:
    """Registered in a controller that knows secrets; changes a report before anybody else is told of it.

    Reports are the source of the terminal's failures, of JUnit's file, and of what other plugins write and send.
    """

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact
        self._xml: LogXML | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Redact a test's report, and what the test has put into JUnit's file beside it."""
        clean(report, self._redact)
        if self._xml is not None:
            for reporter in self._xml.node_reporters.values():
                reporter.attrs = self._redact.inside(reporter.attrs)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Redact what went wrong with a module, and why it was skipped."""
        if not report.passed:
            clean(report, self._redact)

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr: Any) -> None:
        """Redact a traceback of pytest itself."""
        clean(excrepr, self._redact)

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """Redact a warning."""
        text = str(warning_message.message)
        if (clean := self._redact(text)) != text:
            warning_message.message = UserWarning(clean)

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_parametrize_id(self, val: object) -> str | None:
        """Name a test that is parametrized with a secret without it: files are named after the test."""
        return self._redact.name(val)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Redact what tests have said of the whole session in JUnit's file."""
        if self._xml is not None:
            self._xml.global_properties[:] = self._redact.inside(self._xml.global_properties)

    def install(self, config: pytest.Config) -> None:
        """Have everything that pytest prints go through the redactor, and what tests print past its capture.

        Streams are guarded already; by now the redactor may know more.
        """
        config.pluginmanager.register(self, "multihost_env_redaction")
        self._xml = config.stash.get(xml_key, None)
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter._tw._file = Redacted(reporter._tw._file, self._redact)
        if getattr(config.option, "capture", "") == "no":
            _guard(self._redact)
        capturing = getattr(config.pluginmanager.getplugin("capturemanager"), "_global_capturing", None)
        for name in ("out", "err"):  # under --capture=tee-sys each also writes to the stream that it took the place of
            tee: Any = getattr(getattr(capturing, name, None), "tmpfile", None)
            if hasattr(tee, "_other"):
                tee._other = Redacted(tee._other, self._redact)
        handler = getattr(config.pluginmanager.getplugin("logging-plugin"), "log_file_handler", None)
        if handler is not None:
            handler.setFormatter(RedactedFormatter(handler.formatter, self._redact))
        self._install_in_copies(config)

    def _install_in_copies(self, config: pytest.Config) -> None:
        """Have the log of `--debug`, which shows what hooks are called with, and what `--pastebin` sends redacted too."""
        trace = config.trace.root
        if (write := trace._writer) is not None:
            trace.setwriter(lambda text: write(self._redact(text)))
        if pastebinfile_key in config.stash:
            pasted: Any = RedactedBytes(config.stash[pastebinfile_key], self._redact)
            config.stash[pastebinfile_key] = pasted


def guard_streams(config: pytest.Config) -> None:
    """Have nothing that this process prints hold a secret, as long as it lives."""
    try:
        # Not the session's own state: its options are not all known yet.
        redact = MultihostSession(config).plan.redact
    except MultihostError:
        return  # said in a moment, by whoever needs what cannot be had
    if redact:
        _guard(redact)


def _guard(redact: Redactor) -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is not None:
            setattr(sys, name, Redacted(getattr(sys, name), redact))


class Redacted:
    """A text stream that shows no secrets; whatever else is asked of it, the stream behind it answers."""

    def __init__(self, stream: TextIO, redact: Redactor) -> None:
        self._stream = stream
        self._redact = redact

    def write(self, text: str) -> int:
        """Write `text` without secrets; says that all of it was written."""
        self._stream.write(self._redact(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each line without secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class RedactedBytes:
    """A file that gets UTF-8 without secrets; whatever else is asked of it, the file behind it answers."""

    def __init__(self, file: IO[bytes], redact: Redactor) -> None:
        self._file = file
        self._redact = redact

    def write(self, data: bytes) -> int:
        """Write `data` without secrets; says that all of it was written."""
        self._file.write(self._redact(data.decode("utf-8", "replace")).encode("utf-8", "replace"))
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class RedactedFormatter(logging.Formatter):
    """Formats as another formatter does, without secrets."""

    def __init__(self, inner: logging.Formatter, redact: Redactor) -> None:
        super().__init__()
        self._inner = inner
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self._redact(self._inner.format(record))


def clean(value: Any, redact: Redactor) -> None:
    """Redact every text that a report or a traceback holds, in place."""
    _cleaned(value, redact, {})


def _cleaned(value: Any, redact: Redactor, seen: dict[int, Any]) -> Any:
    """Return `value` without secrets: lists, dicts and pytest's own objects are changed in place."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, _LEAVES) or id(value) in seen:
        return value
    if isinstance(value, tuple):
        return tuple(_cleaned(item, redact, seen) for item in value)
    seen[id(value)] = value
    if isinstance(value, list):
        value[:] = [_cleaned(item, redact, seen) for item in value]
    elif isinstance(value, dict):
        items = [(_cleaned(key, redact, seen), _cleaned(item, redact, seen)) for key, item in value.items()]
        value.clear()
        value.update(items)
    elif type(value).__module__.partition(".")[0] in ("_pytest", "pytest", "pytest_multihost_env"):
        slots = [
            name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)
        ]
        for name in (*getattr(value, "__dict__", ()), *slots):
            item = getattr(value, name)
            object.__setattr__(value, name, _cleaned(item, redact, seen))
    return value
