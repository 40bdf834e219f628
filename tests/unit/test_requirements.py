"""A requirements file is read to its last include; what cannot be used is refused with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.provision import requirements
from tests.wheels import wheel

GOOD = """\
# a comment
numpy>=2,<3 ; python_version >= "3.11"   # and another
torch[opt] == 2.9.1 \\
    --hash=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef \\
    --hash=sha256:1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
package @ https://example.org/package-1.0-py3-none-any.whl#sha256=ab
git+https://example.org/repository@v1#egg=thing
-i https://example.org/simple
--extra-index-url=https://example.org/other
--find-links ./wheels
--no-binary :all:
"""


def digest(path: Path) -> str:
    return requirements.read(path).digest(path.parent)


def test_what_pip_and_uv_understand_is_understood(special: Path) -> None:
    file = special / "requirements.txt"
    file.write_text(GOOD)
    listed = requirements.read(file)
    assert listed.hashed
    assert list(listed.read) == [file]
    assert requirements.is_one(file)


@pytest.mark.parametrize("text", ["numpy", "--require-hashes\nnumpy==1", "numpy==1 --hash=sha256:ab"])
def test_hashes_are_seen_where_there_are_some(text: str, special: Path) -> None:
    (special / "r.txt").write_text(text)
    assert requirements.read(special / "r.txt").hashed == ("hash" in text)


def test_every_file_that_decides_is_part_of_the_digest(special: Path) -> None:
    (special / "sub").mkdir()
    top, base, limits = special / "requirements.txt", special / "sub" / "base.txt", special / "limits.txt"
    local = wheel(special)
    top.write_text(f"-r sub/base.txt\n-c limits.txt\n./{local.name}\n")
    base.write_text("--requirement ../requirements.txt\nnumpy\n")  # a circle is read once
    limits.write_text("numpy<3\n")
    assert list(requirements.read(top).read) == [top, base, limits, local]
    seen = {digest(top)}
    for file, text in ((base, "numpy\nscipy\n"), (limits, "numpy<4\n"), (top, "-r sub/base.txt\n")):
        file.write_text(text)
        seen.add(digest(top))
    top.write_text(f"./{local.name}\n")
    seen.add(digest(top))
    local.write_bytes(local.read_bytes() + b"\n")
    seen.add(digest(top))
    assert len(seen) == 6
    before = digest(top)
    moved = special / "moved"
    moved.mkdir()
    for file in (top, local):
        file.rename(moved / file.name)
    assert digest(moved / top.name) == before


BAD = {
    "no requirement": ("numpy\n\nnumpy >=> 2\n", 3, "no requirement"),
    "a word of a shell": ("numpy\npip install scipy\n", 2, "no requirement"),
    "broken over lines": ("numpy\n\nscipy \\\n  ==\\\n  x y\n", 3, "no requirement"),
    "unknown option": ("--target=/tmp\n", 1, "no option"),
    "unknown option of a requirement": ("numpy --upgrade\n", 1, "no option of a requirement"),
    "open quote": ("-r 'base.txt\n", 1, "cannot be split"),
    "option without a value": ("-r\n", 1, "no option"),
    "editable": ("numpy\n-e .\n", 2, "link to its directory"),
    "editable, in one word": ("--editable=./pkg\n", 1, "link to its directory"),
    "a directory": ("numpy\n./pkg\n", 2, "is a directory"),
    "a directory by its URL": ("pkg @ file:./pkg\n", 1, "is a directory"),
    "a wheel that is not there": ("./gone-1.0-py3-none-any.whl\n", 1, "cannot be read"),
    "an include that is not there": ("numpy\n-r gone.txt\n", 2, "gone.txt cannot be read"),
    "a constraint that is not there": ("-cgone.txt\n", 1, "gone.txt cannot be read"),
    "an include from afar": ("-r https://example.org/r.txt\n", 1, "is not a file"),
    "a variable": ("--index-url https://${TOKEN}@example.org/simple\n", 1, "none of yours"),
    "an include that is wrong": ("-r inner.txt\n", 2, "no requirement"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_with_its_line(case: str, special: Path) -> None:
    text, line, said = BAD[case]
    (special / "pkg").mkdir()
    (special / "inner.txt").write_text("# inner\nnumpy ==\n")
    file = special / "requirements.txt"
    file.write_text(text)
    with pytest.raises(UsageProblem, match=said) as caught:
        requirements.read(file)
    name = "inner.txt" if case == "an include that is wrong" else "requirements.txt"
    assert caught.value.where == f"{special / name}:{line}"
    assert caught.value.hint


def test_what_is_no_text_is_refused(special: Path) -> None:
    file = special / "requirements.txt"
    for content in (b"\xff\xfen\0u\0", b"numpy\0"):
        file.write_bytes(content)
        with pytest.raises(UsageProblem, match="not text"):
            requirements.read(file)
    file.write_bytes(b"\xef\xbb\xbfnumpy\n")  # a mark that Windows editors leave
    assert not requirements.read(file).hashed
