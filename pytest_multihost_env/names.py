"""Names of hosts, variables and sizes: which are allowed, which look like secrets, when two hosts are one machine."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
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


def plain_host(name: str, suffixes: Sequence[str] = ()) -> str:
    """Return a host name in lower case, without a final dot and without a suffix of its first label.

    Args:
        name: The name of the host.
        suffixes: What a site appends to name one interface of a host: with `-hsn0`, `n1-hsn0.x.org` is `n1.x.org`.
    """
    label, dot, domain = name.lower().rstrip(".").partition(".")
    for suffix in suffixes:
        if label.endswith(suffix) and label != suffix:
            return label.removesuffix(suffix) + dot + domain
    return label + dot + domain


def is_address(host: str) -> bool:
    """Return whether `host` is an IPv4 address, which says nothing of what the machine calls itself."""
    return _ADDRESS.fullmatch(host) is not None


def short_host(name: str, suffixes: Sequence[str] = ()) -> str:
    """Return the first label of a host name, as `plain_host` has it; an IPv4 address stays whole."""
    plain = plain_host(name, suffixes)
    return plain if is_address(plain) else plain.split(".", 1)[0]


def same_host(one: str, other: str, suffixes: Sequence[str] = ()) -> bool:
    """Return whether two names mean one machine: equal, or one is the other with a domain (`n1`, `n1.example.org`).

    Names in two different domains are two machines.  For `suffixes` see `plain_host`.
    """
    first, second = plain_host(one, suffixes), plain_host(other, suffixes)
    short = short_host(first)
    return first == second or (short == short_host(second) and short in (first, second))


def size_of(size: float) -> str:
    """Return a number of bytes as a person reads it: `9.6 TiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
