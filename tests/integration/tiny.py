"""A builder that is quick, keeps a log of what it did, and can be slow or fail on demand; and a program that uses it.

The log is the proof of who copied: one line for each beginning and each end, appended in one write.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from pytest_multihost_env import provision
from pytest_multihost_env.errors import MultihostError, NotReady
from pytest_multihost_env.protocols import Work


@dataclasses.dataclass
class TinyBuilder:
    """Copies `source` file by file, `pause` seconds apart.

    `gate`: wait before the end until this file is there.  `fail`: then fail with this reason.
    """

    log: Path | None = None
    pause: float = 0.0
    gate: Path | None = None
    fail: str = ""
    name: str = "tiny"

    def refuses(self, source: Path) -> str | None:
        if not source.is_dir():
            return f"{source} is not a directory"
        return None if (source / "pyvenv.cfg").is_file() else f"{source} is not a virtual environment"

    def fingerprint(self, source: Path) -> str:
        digest = hashlib.sha256()
        for path in sorted(source.rglob("*")):
            digest.update(str(path.relative_to(source)).encode())
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def build(self, source: Path, destination: Path, work: Work) -> None:
        self._note("begin")
        destination.mkdir()
        for path in sorted(source.rglob("*")):
            copy = destination / path.relative_to(source)
            if path.is_symlink():
                copy.symlink_to(path.readlink())
            elif path.is_dir():
                copy.mkdir()
            else:
                shutil.copy2(path, copy)
            time.sleep(self.pause)
        while self.gate is not None and not self.gate.exists():
            time.sleep(0.02)
        if self.fail:
            raise NotReady(self.fail, hint="mend it")
        self._note("end")

    def _note(self, what: str) -> None:
        if self.log is not None:
            fd = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(fd, f"{what} {os.uname().nodename} {os.getpid()}\n".encode())
            os.close(fd)


def finish(env: Path, source: Path, work: Work) -> tuple[str, ...]:
    (env / "finished").write_text(str(source))
    return ("addition 1.0",)


def make_source(path: Path) -> Path:
    """Make something that looks like a small virtual environment."""
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").write_text("#!/bin/sh\necho tiny\n")
    (path / "bin" / "python").chmod(0o755)
    (path / "bin" / "python3").symlink_to("python")
    (path / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    (path / "empty dir").mkdir()
    for number in range(8):
        module = path / "lib" / f"pkg {number}" / "__init__.py"
        module.parent.mkdir(parents=True)
        module.write_text(f"value = {number}\n")
    return path


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--gate", type=Path)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--fail", default="")
    parser.add_argument("--ttl", type=float, default=20.0)
    parser.add_argument("--timeout", type=float, default=90.0)
    args = parser.parse_args()
    request = provision.ProvisionRequest(
        args.source, args.target, timeout=args.timeout, ttl=args.ttl, beat=args.ttl / 5
    )
    recipe = provision.Recipe(TinyBuilder(args.log, args.pause, args.gate, args.fail), finish)
    try:
        generation = provision.ensure(
            request, notify=lambda text: print(text, file=sys.stderr, flush=True), recipe=recipe
        )
    except MultihostError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    answer = {"path": str(generation.path), "digest": generation.digest, "reused": generation.reused}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
