"""Other versions of the protocol, and gc among readers: nobody touches what is another's or in use."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.tiny import make_source
from tests.storm import alone, reader
from tests.storm.field import Field
from tests.storm.scale import SEED, scaled


def snapshot(directory: Path) -> dict[str, object]:
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns, path.is_file() and path.read_bytes())
    return found


def test_another_version_of_the_protocol_is_let_alone(special: Path) -> None:
    """L11."""
    source, target = make_source(special / "source"), special / "shared" / "python_env"
    made = alone.whole(source, target)
    store = target.parent / ".python_env.d"
    slot = store / "v2" / made.key
    for name in ("att/n1-1-abc/bin", "lease", "pins"):
        (slot / name).mkdir(parents=True)
    for name, text in (("READY", "{}"), ("FAIL-x", "no"), ("lease/c00000009", "{}"), ("att/n1-1-abc.json", "{}")):
        (slot / name).write_text(text)
    before = snapshot(store / "v2")
    (source / "new").write_text("changed")
    assert not alone.whole(source, target).reused
    reader.clear(target, seconds=0.0)
    assert not made.path.exists()
    assert snapshot(store / "v2") == before


def test_gc_among_readers(fields: Callable[..., Field], figure: Callable[[str], None]) -> None:
    """L12: readers hold what they were given and look at it; others build anew all the time; each host clears up."""
    with fields() as field, field.round(SEED, 1) as here:
        for observer in field.observers.values():
            observer.order("rest")  # environments go here, as they should: it is the readers who must not see it
        seconds, uses = scaled(4, 40), 0
        for host in field.hosts:
            here.start(host, "--role", "clear", "--seconds", str(seconds))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            while len(here.living) < 12:
                uses += 1
                force = ["--force"] if uses % 4 == 0 else []
                here.start(field.hosts[uses % 4], "--role", "use", "--seconds", str(0.1 * (uses % 5)), *force)
            time.sleep(0.01)
        history = here.finish()
    for member in history.members:
        assert member.code == 0, member.said
        assert not member.lacks, (member.host, member.lacks)
    made = {member.path for member in history.members if member.path}
    assert len(made) > 3, "nothing was built anew"
    assert len(history.attempts) < len(made), "no gc took anything away"
    figure(f"{uses} readers of {len(made)} environments, gc on 4 hosts for {seconds} s: 0 taken away while in use")
