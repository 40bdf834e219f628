"""What runs on each host of a storm: forks provisioners on demand and says when they end.

One line of JSON in, `{"id": 1, "argv": […], "log": PATH}`; out come `{"id", "pid"}` and, in its time, `{"id", "exit"}`.
The modules are loaded once, so that a provisioner starts in milliseconds and a storm is not a storm of imports.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import selectors
import signal
import sys
import traceback
from pathlib import Path

from tests.storm import mutants, provisioner


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutant", default="")
    args = parser.parse_args()
    mutants.apply(args.mutant)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
    buffer, children = b"", {}
    _say({"up": True})
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                selector.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(children[key.data], 0)
                _say({"id": key.data, "exit": os.waitstatus_to_exitcode(status)})
                continue
            data = os.read(key.fd, 65536)
            if not data:
                return 0
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = children[order["id"]] = _start(order)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, order["id"])
                _say({"id": order["id"], "pid": pid})


def _say(event: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _start(order: dict[str, object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives the storm
        with Path(str(order["log"])).open("ab", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        argv = order["argv"]
        assert isinstance(argv, list)
        code = provisioner.main([str(text) for text in argv])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
