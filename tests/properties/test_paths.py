"""Laws of replacing a path in text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_multihost_env.provision.paths import Replacer

component = st.text(st.sampled_from("ab2-._ü#"), min_size=1, max_size=4).filter(lambda text: text not in {".", ".."})
path = st.lists(component, min_size=1, max_size=4).map(lambda parts: Path("/", *parts))
text = st.lists(path.map(str) | st.sampled_from([" ", ":", '"', "'", "=", "\n", "#!", "x", "-"]), max_size=8).map(
    "".join
)


class TestReplacer:
    @given(path, path, text)
    def test_twice_is_once(self, new: Path, old: Path, value: str) -> None:
        once = Replacer(new, [old]).text(value)
        assert Replacer(new, [old]).text(once) == once

    @given(path, path, component)
    def test_a_longer_component_is_another_path(self, new: Path, old: Path, more: str) -> None:
        value = f"{old}{more}/bin"
        if not value.startswith((f"{new}/", f"{old}/")):
            assert Replacer(new, [old]).text(value) == value
            assert Replacer(new, [old]).path(value) == value

    @given(path, path, component)
    def test_below_another_directory_it_is_another_path(self, new: Path, old: Path, top: str) -> None:
        value = f"/{top}{old}"
        if not value.startswith((f"{new}/", f"{old}/")) and value not in {str(new), str(old)}:
            assert Replacer(new, [old]).text(value) == value

    @given(path, path, component, st.sampled_from(["", '"', "'", " ", "=", ":", "\n"]))
    def test_what_is_below_the_old_comes_below_the_new(self, new: Path, old: Path, name: str, edge: str) -> None:
        value = f"{old}/{name}"
        if value == str(new) or value.startswith(f"{new}/"):
            return
        moved = f"{new}/{name}"
        assert Replacer(new, [old]).path(value) == moved
        assert Replacer(new, [old]).text(f"{edge}{value}{edge}") == f"{edge}{moved}{edge}"


def test_examples() -> None:
    replacer = Replacer(Path("/new"), [Path("/data/env")])
    assert replacer.text('"/data/env/bin" /data/env2 /mnt/data/env /data/env.old /data/env') == (
        '"/new/bin" /data/env2 /mnt/data/env /data/env.old /new'
    )
    assert replacer.text("-L/data/env/lib") == "-L/data/env/lib"
    glued = Replacer(Path("/new"), [Path("/data/env")], glued=True)
    assert glued.text("-L/data/env/lib -Wl,-rpath,/data/env/lib") == "-L/new/lib -Wl,-rpath,/new/lib"


def test_an_environment_below_its_own_source_is_not_moved_twice() -> None:
    replacer = Replacer(Path("/job/python_env"), [Path("/job")])
    assert replacer.text("/job/bin /job/python_env/bin") == "/job/python_env/bin /job/python_env/bin"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("#!/data/env/bin/python", True),
        ("-L/data/env/lib", True),
        ("x=/data/env", True),
        ("/data/env2", False),
        ("/mnt/data/env", False),
        ("/data/env/att/one/bin", False),
        ("/data/env/att/other", True),
    ],
)
def test_what_still_names_an_old_path(text: str, names: bool) -> None:
    replacer = Replacer(Path("/data/env/att/one"), [Path("/data/env")])
    assert replacer.names_old(text) is names
