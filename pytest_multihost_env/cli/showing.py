"""`demo`: the whole product on one machine, in half a minute."""

from __future__ import annotations

import click

from pytest_multihost_env.cli import output
from pytest_multihost_env.cli.state import common


@click.command()
@click.option("--keep", is_flag=True, help="Leave the directory of the demonstration in place and say where it is.")
@common
def demo(*, keep: bool) -> int:
    """Make an environment, provision it, run tests on four ranks in it, and find a drift that is planted.

    Everything happens in a temporary directory of this machine, which is removed at the end.  The exit code is 0
    only when what has to pass passed and the planted drift was found.
    """
    from pytest_multihost_env import demo as demonstration

    return demonstration.run(output.look(), keep=keep)
