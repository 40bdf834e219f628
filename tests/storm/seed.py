"""How a shared environment is usually set up by a script: flock, "is it there?", cp, mv, and the interpreter in place.

Only here to show that the storms are storms: it is red in them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path

from pytest_multihost_env.protocols import Work
from tests.integration import tiny


def main() -> int:
    """Stand in for `tiny.main`."""
    argv = sys.argv[1:]
    source, target = Path(argv[0]), Path(argv[1])
    options = dict(zip(argv[2::2], argv[3::2], strict=True))
    builder = tiny.TinyBuilder(Path(options["--log"]), float(options["--pause"]))
    lock = os.open(target.with_name(f"{target.name}.lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    reused = target.is_dir()
    if not reused:
        temporary = target.with_name(f"{target.name}.tmp.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            builder.build(source, temporary, Work())
            temporary.rename(target)
        except OSError as error:
            print(error, file=sys.stderr)
            return 3
        time.sleep(0.1)  # the interpreter is copied into it
        tiny.finish(target, source, Work())
    print(json.dumps({"path": str(target), "digest": "", "reused": reused}))
    return 0
