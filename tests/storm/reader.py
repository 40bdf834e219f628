"""Callers that use what they get for a while and look at it all the time, and callers that clear up meanwhile."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from pytest_multihost_env import provision
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.provision import actor, garbage
from tests.integration import tiny
from tests.storm import oracle


def main(argv: Sequence[str]) -> int:
    """Do what the role says, and print an answer as `provisioner` does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--role", choices=["use", "clear"])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--force", action="store_true")
    args = parser.parse_args(argv)
    answer = {"path": "", "digest": "", "reused": True, "lacks": []}
    if args.role == "clear":
        clear(args.target, args.seconds)
    else:
        answer = use(args)
    print(json.dumps(answer))
    return 0


def clear(target: Path, seconds: float) -> None:
    """Take away, again and again, whatever nobody uses and TARGET does not lead to; at least once."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(UsageProblem):  # nothing was made as yet
            garbage.collect(target, garbage.Wish(keep=0))
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def use(args: argparse.Namespace) -> dict[str, object]:
    """Provision, pinned for this process, and look at it until the time is over."""
    request = provision.ProvisionRequest(args.source, args.target, force=args.force, ttl=2.0, beat=0.4, timeout=60)
    recipe = provision.Recipe(tiny.TinyBuilder(args.log, 0.002), tiny.finish)
    generation = provision.ensure(request, notify=lambda text: None, recipe=recipe, user=actor.myself())
    deadline, lacks = time.monotonic() + args.seconds, []
    while not lacks:
        lacks = [text for text in oracle.lacks(generation.path, args.source) if "published" not in text]
        if time.monotonic() > deadline:
            break
    return {"path": str(generation.path), "digest": generation.digest, "reused": generation.reused, "lacks": lacks}
