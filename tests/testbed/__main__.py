"""Bring hosts up, give a shell on the first, and take all down when it ends: `python -m tests.testbed up -n 3`."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from tests.testbed.bed import Testbed, Unavailable
from tests.testbed.client import refusal

_NOTE = """\
Hosts: {hosts}; `ssh n2` works for root and for {users}.
On all hosts:          {shared}
On each host its own:  {local}, /tmp, /run, /dev/shm
Nothing here reaches the world outside.  Leave the shell to take everything down.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 3 where there can be no testbed, else that of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="say whether this machine can hold a testbed")
    up = commands.add_parser("up", help="bring hosts up and give a shell on n1")
    up.add_argument("-n", "--hosts", type=int, default=3, help="how many (default: 3)")
    up.add_argument("-u", "--user", default="root", help="whose shell: root (default) or an ordinary user")
    up.add_argument("run", nargs="*", metavar="COMMAND", help="what to run on n1 instead of a shell")
    for parser_of_one in (check, up):
        parser_of_one.add_argument("--rootless", action="store_true", default=None, help="as an ordinary user")
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "check":
            rootless = os.geteuid() != 0 if asked.rootless is None else asked.rootless
            print(refusal(rootless=rootless) or "nothing is missing")
            return 3 if refusal(rootless=rootless) else 0
        return _shell(asked)
    except Unavailable as error:
        print(f"no testbed: {error}", file=sys.stderr)
        return 3


def _shell(asked: argparse.Namespace) -> int:
    users = ("alice",) if asked.user in ("root", "alice") else ("alice", asked.user)
    with Testbed(hosts=asked.hosts, users=users, rootless=asked.rootless) as bed:
        if not asked.run:
            print(_NOTE.format(hosts=" ".join(bed.names), users=" ".join(users), shared=bed.shared, local=bed.local))
        env = {"TERM": os.environ.get("TERM", "dumb"), "SHARED": str(bed.shared), "LOCAL": str(bed.local)}
        # The shell shares our terminal, so it must stay in our session; what is typed is for it alone.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        with bed.popen(
            "n1", asked.run or ["bash", "-i"], user=asked.user, cwd=bed.shared, env=env, start_new_session=False
        ) as shell:
            code = shell.wait()
        if sys.stdin.isatty():
            os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
