"""One caller: provisions the tiny environment, looks at once at what it was given, and says both.

python -m tests.storm.provisioner [--unchecked] SOURCE TARGET …        options as `tests.integration.tiny`
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from tests.integration import tiny
from tests.storm import oracle, reader


def main(argv: Sequence[str]) -> int:
    if "--role" in argv:
        return reader.main(argv)
    unchecked = "--unchecked" in argv
    arguments = [text for text in argv if text != "--unchecked"]
    with mock.patch.object(sys, "argv", ["tiny", *arguments]), contextlib.redirect_stdout(io.StringIO()) as out:
        code = tiny.main()
    if code == 0:
        answer = json.loads(out.getvalue())
        answer["lacks"] = [] if unchecked else oracle.lacks(Path(answer["path"]), Path(arguments[0]))
        print(json.dumps(answer))
    return code


if __name__ == "__main__":
    if "FAKETIME" in os.environ:
        # libfaketime 0.9.10 that leaves the monotonic clock alone makes a mistake in clock_nanosleep(2).
        time.sleep = threading.Event().wait  # type: ignore[assignment]
    sys.exit(main(sys.argv[1:]))
