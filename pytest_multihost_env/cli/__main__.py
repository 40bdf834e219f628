"""Runs the command with `python -m pytest_multihost_env.cli`."""

import sys

from pytest_multihost_env.cli.root import main

sys.exit(main())
