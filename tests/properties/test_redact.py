"""Laws of redaction: in whatever form and however cut, no eight characters of a secret in a row come through."""

from __future__ import annotations

import base64
import html
import json
import shlex
import urllib.parse
from collections.abc import Callable

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pytest_multihost_env.redact import HIDDEN, PIECE, Redactor, forms

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
AWKWARD = st.text(st.sampled_from("ab*'\"\\\n%&<ü€ +/=\t"), min_size=PIECE, max_size=40)
SECRETS = st.one_of(
    AWKWARD,
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=PIECE, max_size=60),
    st.from_regex(r"[A-Za-z0-9_]{24}", fullmatch=True),
)
FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "repr": repr,
    "repr of repr": lambda text: repr(repr(text)),
    "repr in repr of a dict": lambda text: repr({"k": [text, "it's"]}),
    "ascii": ascii,
    "json": json.dumps,
    "json, not ascii": lambda text: json.dumps(text, ensure_ascii=False),
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "html": html.escape,
    "json in html": lambda text: html.escape(json.dumps(text)),
    "bytes": lambda text: repr(text.encode()),
    "shell": shlex.quote,
    "url": lambda text: urllib.parse.quote(text, safe=""),
    "url, slash": urllib.parse.quote,
    "url, plus": urllib.parse.quote_plus,
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
}


def pieces(text: str) -> set[str]:
    return {text[at : at + PIECE] for at in range(len(text) - PIECE + 1)}


@settings(max_examples=500)
@example(form="shell", secret="ab'cd'ef'gh'ij", before="", after="")
@example(form="plain", secret="xyz***uvw", before="xyz", after="uvw")
@given(form=st.sampled_from(sorted(FORMS)), secret=SECRETS, before=TEXT, after=TEXT)
def test_no_piece_of_any_form_comes_through(form: str, secret: str, before: str, after: str) -> None:
    written = FORMS[form](secret)
    shown = Redactor([secret])(f"{before}{written}{after}")
    assert not pieces(shown) & {piece for known in forms(secret) for piece in pieces(known)}
    assert not pieces(shown) & pieces(secret)
    if form.startswith(("repr", "ascii", "json", "bytes", "shell")):
        written = written[1:-1].strip("'\"")  # the quotes around it are nobody's secret
    if form != "repr in repr of a dict":
        assert not pieces(shown) & (pieces(written) - pieces(before) - pieces(after))


@given(secret=SECRETS, before=st.binary(max_size=5), after=st.binary(max_size=5))
def test_base64_is_found_wherever_the_secret_begins(secret: str, before: bytes, after: bytes) -> None:
    data = secret.encode()
    shown = Redactor([secret])(base64.b64encode(before + data + after).decode())
    for at in range(len(shown) - PIECE + 1):
        piece = shown[at : at + PIECE]
        if "*" in piece or "=" in piece:
            continue
        for lead in ("", "A", "AA", "AAA"):
            raw = base64.b64decode(lead + piece + "A" * (-len(lead + piece) % 4))
            inner = raw[len(lead) : len(raw) - 2]
            assert len(inner) < 3 or inner not in data or inner in before + after or data.count(inner) > 1


@given(secret=SECRETS, cut=st.data())
def test_a_fragment_is_as_secret_as_the_whole(secret: str, cut: st.DataObject) -> None:
    start = cut.draw(st.integers(0, len(secret) - PIECE))
    stop = cut.draw(st.integers(start + PIECE, len(secret)))
    shown = Redactor([secret])(f"\0{secret[start:stop]}...\0")
    assert shown in (f"\0{HIDDEN}...\0", f"\0{HIDDEN}\0"), "nothing but the fragment went"


@given(secrets=st.lists(SECRETS, max_size=3), text=TEXT)
def test_other_text_is_left_alone_and_a_second_look_changes_nothing(secrets: list[str], text: str) -> None:
    redact = Redactor(secrets)
    known = {piece for secret in secrets for form in forms(secret) for piece in pieces(form)}
    if not pieces(text) & known:
        assert redact(text) == text
    both = "".join([text, *secrets, text])
    assert redact(redact(both)) == redact(both)
    assert Redactor()(both) == both
    assert bool(redact) is bool(secrets)


@given(secret=st.from_regex(r"[a-z]{24}", fullmatch=True), text=st.text(st.sampled_from("ABC .\n"), max_size=60))
def test_pieces_that_were_cut_apart_stay_small(secret: str, text: str) -> None:
    """What pytest does to long texts: the middle goes, both ends stay."""
    assume(len(set(secret)) > 4)
    shortened = f"{text}{secret[:11]}...{secret[-13:]}{text}"
    assert Redactor([secret])(shortened) == f"{text}{HIDDEN}...{HIDDEN}{text}"


def test_values_inside_values() -> None:
    redact = Redactor(["0123456789"])
    assert redact.inside({"k0123456789": ["0123456789", 7, None, ("x", "a012345678b")]}) == {
        "k***": ["***", 7, None, ("x", "a***b")]
    }


def test_a_value_gets_a_name_only_when_it_has_a_secret_in_it() -> None:
    redact = Redactor(["0123456789"])
    assert [redact.name(value) for value in ("a0123456789", b"\xff0123456789", "a", b"a", 123456789, None)] == [
        "a***", "\\xff***", None, None, None, None,
    ]  # fmt: skip


def test_what_is_too_short_to_be_hidden_hides_nothing() -> None:
    assert Redactor(["1234567", ""])("1234567") == "1234567"
    assert not Redactor(["1234567", ""])
