"""The documentation's code runs, and what it shows is what comes out.

A fenced block is run when the line `% run` stands before it (a comment in MyST, invisible to readers):

    % run: file test_x.py      the block is written to that file
    % run                      a `console` block: the lines after `$ ` run as one bash script, which must end with 0
    % run: exit 1              the same, and it must end with 1

The other lines of a console block are the output: they must appear in that order; `...` stands for anything.
The blocks of a page run one after the other in one directory whose name is as awkward as `special` makes it; `SOURCE`
is a virtual environment with NumPy, mpi4py and Open MPI.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pytest_multihost_env.config.table import SETTINGS
from pytest_multihost_env.errors import MultihostError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
_BLOCK = re.compile(r"^% run(?:: *(?P<how>[^\n]+))?\n+```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """One block to run: `file` to write, or `script` that must end with `code` and print `output`."""

    file: str = ""
    text: str = ""
    script: str = ""
    code: int = 0
    output: tuple[str, ...] = ()


def blocks(page: str) -> list[Block]:
    found = []
    for match in _BLOCK.finditer(page):
        how, body = (match["how"] or "").split(), match["body"]
        if how[:1] == ["file"]:
            found.append(Block(file=how[1], text=body))
            continue
        assert match["kind"] == "console", f"only console blocks can be run: {body}"
        assert how[:1] in ([], ["exit"]), f"not understood: % run: {match['how']}"
        lines = body.splitlines()
        script = "\n".join(line[2:] for line in lines if line.startswith(("$ ", "> ")))
        output = tuple(line for line in lines if line.strip() and not line.startswith(("$ ", "> ")))
        found.append(Block(script=script, code=int(how[1]) if how else 0, output=output))
    return found


def missing(expected: tuple[str, ...], output: str) -> str | None:
    """Return the first expected line that does not follow the ones before it, or None."""
    rest = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in expected:
        if line.strip() == "...":
            continue
        pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).split("..."))
        if not any(re.fullmatch(pattern, candidate) for candidate in rest):
            return line
    return None


def run(block: Block, directory: Path, environ: dict[str, str]) -> None:
    if block.file:
        path = directory / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        return
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.script],
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    shown = f"$ {block.script}\n{done.stdout}"
    assert done.returncode == block.code, f"exit code {done.returncode} instead of {block.code}\n{shown}"
    lost = missing(block.output, done.stdout)
    assert lost is None, f"this line of the page did not come: {lost}\n{shown}"


RUNNABLE = [page for page in PAGES if blocks(page.read_text(encoding="utf-8"))]


@pytest.mark.mpi_programs
@pytest.mark.parametrize("page", RUNNABLE, ids=[str(page.relative_to(ROOT)) for page in RUNNABLE])
def test_code_of_the_page_runs(page: Path, special: Path, tmp_path: Path, plain_source: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    dropped = ("PYTEST_", "COV_", "MULTIHOST_", "OMPI_", "PMI")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}:{environ.get('PATH', '')}",
        "HOME": str(home),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "SOURCE": str(plain_source),
    }
    for block in blocks(page.read_text(encoding="utf-8")):
        run(block, special, environ)


def test_pages_with_code_to_run_are_found() -> None:
    assert RUNNABLE


PAGE = """
% run: file a.txt

```text
hello
```

% run
```console
$ cat a.txt; \\
> echo "took 12 s"
hello
took ... s
```

```console
$ false
```

% run: exit 3
```console
$ exit 3
```
"""


def test_blocks_are_read_and_run(special: Path) -> None:
    found = blocks(PAGE)
    assert [bool(block.file) for block in found] == [True, False, False]
    for block in found:
        run(block, special, dict(os.environ))
    assert (special / "a.txt").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        (Block(script="false"), "exit code 1 instead of 0"),
        (Block(script="true", code=1), "exit code 0 instead of 1"),
        (Block(script="echo b; echo a", output=("a", "b")), "did not come: b"),
        (Block(script="echo took s", output=("took ... s",)), "did not come: took ... s"),
        (Block(script="false; true"), "exit code 1"),
    ],
)
def test_a_wrong_page_is_found_out(block: Block, complaint: str, special: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        run(block, special, dict(os.environ))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_shown_settings_exist(page: Path) -> None:
    known = {setting.option for setting in SETTINGS if setting.everywhere}
    shown = set(re.findall(r"--multihost-[a-z]+(?:-[a-z]+)*", page.read_text(encoding="utf-8")))
    assert shown - known - {"--multihost-NAME"} == set()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_shown_commands_exist(page: Path) -> None:
    shown = re.findall(r"(?:^|[`/( ])multihost-env +([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    if not shown:
        return
    cli = importlib.import_module("pytest_multihost_env.cli")
    known = next(set(value.commands) for value in vars(cli).values() if isinstance(value, click.Group))
    assert set(shown) - known == set()


def test_the_exit_codes_of_all_errors_are_on_the_page() -> None:
    def family(kind: type[MultihostError]) -> set[int]:
        return {kind.exit_code}.union(*map(family, kind.__subclasses__()))

    page = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    assert family(MultihostError) <= {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
