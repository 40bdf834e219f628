"""The parser's root, and the one place where errors become sentences and exit codes."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from pytest_multihost_env import __version__
from pytest_multihost_env.cli import output
from pytest_multihost_env.cli.checking import check
from pytest_multihost_env.cli.clearing import gc
from pytest_multihost_env.cli.doctor import doctor
from pytest_multihost_env.cli.looking import env, hosts, plan
from pytest_multihost_env.cli.provisioning import activate, failing_code, provision, verify
from pytest_multihost_env.cli.running import run
from pytest_multihost_env.cli.showing import demo
from pytest_multihost_env.cli.state import State, common, in_our_words
from pytest_multihost_env.errors import MultihostError, UsageProblem

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="multihost-env")
@common
def command() -> None:
    """The same proven Python environment on every host of a job.

    Exit codes: 0 good; 1 the answer is no; 2 usage; 3 the environment could not be made ready; 4 hosts could not be
    reached; 124 time limit; 130 interrupted.  A program that `run` started keeps its own code.
    """


for _part in (provision, activate, verify, gc, hosts, env, plan, check, run, doctor, demo):
    command.add_command(_part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: Without the program's name; None: those of this process.
    """
    output.open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    before = signal.signal(signal.SIGTERM, _end)
    state = State(words=tuple(words))
    code = 1
    try:
        code = _run(words, state)
    finally:
        signal.signal(signal.SIGTERM, before)
        # Whatever went wrong, down to a bug of ours: a shell that evaluates what `activate` printed must not go on.
        if code != 0 and "activate" in words and "run" not in words[: words.index("activate")]:
            with contextlib.suppress(OSError):
                output.put(failing_code(words))
    return code


def _run(words: list[str], state: State) -> int:
    running: list[click.Command] = []
    try:
        with command.make_context("multihost-env", words, obj=state) as context:
            running.append(_named(context, words))
            _require_directory()
            answer = command.invoke(context)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        path = where.command_path if where is not None else " ".join(["multihost-env", *_parts(words)])
        output.notice(f"{error.format_message()}\n  remedy: see `{path} --help`")
        return error.exit_code
    except MultihostError as error:
        _trace(state)
        output.notice(in_our_words(str(error), running[0] if running else None))
        return error.exit_code
    except BrokenPipeError:
        # The reader has seen enough (`| head`); what is left in the buffer has nowhere to go.
        output.give_up()
        return 1
    except OSError as error:
        _trace(state)
        output.notice(f"{error.filename or 'the operating system'}: {error.strerror or error}")
        return 3
    except (KeyboardInterrupt, click.Abort):
        output.notice("interrupted")
        return INTERRUPTED
    return answer if isinstance(answer, int) else 0


def _named(context: click.Context, words: list[str]) -> click.Command:
    """Return the subcommand that was typed, or the root."""
    return next((command.commands[word] for word in _parts(words)), context.command)


def _parts(words: list[str]) -> list[str]:
    """Return the name of the subcommand that was typed, in a list; none when there is none."""
    return [word for word in words if word in command.commands][:1]


def _require_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UsageProblem("the working directory is not there any more", hint="change to one that is (`cd`)") from None


def _trace(state: State) -> None:
    if state.verbose:
        traceback.print_exc()


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """End by unwinding, so that what is half-made is taken away."""
    sys.exit(128 + signal.SIGTERM)
