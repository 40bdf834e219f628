"""Which names of hosts and variables are allowed, which look like secrets, and when two host names mean one machine."""

from __future__ import annotations

import re

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|KEY|CREDENTIAL", re.IGNORECASE)
_ADDRESS = re.compile(r"\d+(\.\d+){3}")


def valid_host(name: str) -> bool:
    """Return whether `name` can be given to a launcher: it cannot be taken for an option, a path or two words."""
    return _HOST.fullmatch(name) is not None


def valid_variable(name: str) -> bool:
    """Return whether `name` is a variable name that every shell and launcher accepts (POSIX XBD 3.235)."""
    return _VARIABLE.fullmatch(name) is not None


def looks_secret(name: str) -> bool:
    """Return whether a variable of this name holds what nobody should see (TOKEN, SECRET, PASSWORD, KEY and the like)."""
    return _SECRET.search(name) is not None


def short_host(name: str) -> str:
    """Return the first label of a host name in lower case; an IPv4 address stays whole."""
    lower = name.lower().rstrip(".")
    return lower if _ADDRESS.fullmatch(lower) else lower.split(".", 1)[0]


def same_host(one: str, other: str) -> bool:
    """Return whether two names mean one machine: equal, or one is the other with a domain (`n1`, `n1.example.org`).

    Names in two different domains are two machines.
    """
    first, second = one.lower().rstrip("."), other.lower().rstrip(".")
    short = short_host(first)
    return first == second or (short == short_host(second) and short in (first, second))
