"""Runs uv: where it is looked for, what it is given of this process's environment, and what is said when it fails."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_multihost_env import files, process
from pytest_multihost_env.errors import NotReady, Passing
from pytest_multihost_env.protocols import Work

LIMIT = 3600.0
"""Seconds that uv may take: building a large package from source does."""

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LC_ALL", "NETRC", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
    *("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "LD_LIBRARY_PATH", "CUDA_HOME", "MAX_JOBS"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX", "UV_INDEX_STRATEGY", "UV_INDEX_URL"),
    *(
        "UV_CONFIG_FILE",
        "UV_HTTP_RETRIES",
        "UV_HTTP_TIMEOUT",
        "UV_INSECURE_HOST",
        "UV_KEYRING_PROVIDER",
        "UV_NATIVE_TLS",
        "UV_NO_CONFIG",
    ),
    *("UV_OFFLINE", "UV_SYSTEM_CERTS", "UV_TORCH_BACKEND", "UV_CONCURRENT_BUILDS", "UV_CONCURRENT_DOWNLOADS"),
)
"""All that a build gets of the caller's environment, and what `_INDEX_ACCOUNT` matches; no secret is among the rest."""

_INDEX_ACCOUNT = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_ERROR = re.compile(r"\s*(?:error:|\u00d7)\s*(.+)")
_TAIL = 30

_NETWORK = re.compile(
    r"error sending request|Failed to fetch|dns error|Connection re(?:fused|set)|timed out|Could not connect|"
    r"Network connectivity is disabled|503 Service|502 Bad|429 Too Many",
    re.IGNORECASE,
)
_HINTS = (
    (r"[Hh]ash mismatch", "the file on the index is not the one that the hashes are of: find out why, or lock again"),
    (r"No space left|quota exceeded", "free space, or set UV_CACHE_DIR and TMPDIR to where there is some"),
    (r"no wheels? with a matching|requires? Python|Requires-Python|no (?:source distribution|matching)",
     "choose a version that has a wheel for this Python and platform, or another Python (the setting `python`)"),
    (r"No solution found|unsatisfiable", "relax one of the requirements that it names"),
    (r"401 Unauthorized|403 Forbidden", "put the account of the index into ~/.netrc or UV_INDEX_<NAME>_PASSWORD"),
    (r"[Ff]ailed to build", "see what the build says, or choose a version that has a wheel"),
)  # fmt: skip


def program() -> str:
    """Return the path of uv: the one of the package `uv`, else the one on PATH.

    Raises:
        Passing: There is none; it says where it was looked for.
    """
    with contextlib.suppress(ImportError, FileNotFoundError):
        return str(importlib.import_module("uv").find_uv_bin())
    on_path = shutil.which("uv")
    if on_path is not None:
        return on_path
    raise Passing(
        "uv is needed to make an environment from this source, and there is none",
        expected=f"the package uv beside this program, or uv on PATH: {os.environ.get('PATH', os.defpath)}",
        hint="pip install 'pytest-multihost-env[uv]'",
    )


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which uv builds, made on purpose and not by what a shell happens to have."""
    given = {name: value for name, value in environ.items() if name in PASSED or _INDEX_ACCOUNT.fullmatch(name)}
    home = environ.get("HOME") or "/nonexistent"
    cache = environ.get("UV_CACHE_DIR") or f"{environ.get('XDG_CACHE_HOME') or f'{home}/.cache'}/uv"
    pythons = (
        environ.get("UV_PYTHON_INSTALL_DIR") or f"{environ.get('XDG_DATA_HOME') or f'{home}/.local/share'}/uv/python"
    )
    made = {
        "UV_CACHE_DIR": os.path.abspath(cache),  # noqa: PTH100 - as text
        "UV_PYTHON_INSTALL_DIR": os.path.abspath(pythons),  # noqa: PTH100
        "UV_PYTHON_DOWNLOADS": "never",  # the Python is a decision, not an accident
        "UV_LINK_MODE": "copy",  # a link into the cache would change with it
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }
    if not can_write(Path(made["UV_CACHE_DIR"])):
        made["UV_NO_CACHE"] = "1"  # uv then uses a directory for this call
    return {**given, **made}


def run(
    words: Sequence[str], source: Path, work: Work, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> None:
    """Run uv in the directory of `source`; what it says is shown only when it fails.

    Raises:
        NotReady: It failed; it would fail again, unless the error is a `Passing`.
    """
    argv = [program(), *words]
    try:
        done = process.run(
            argv,
            env={**environment(os.environ), **(env or {})},
            cwd=source.absolute().parent,
            input=stdin,
            timeout=LIMIT,
        )
    except OSError as error:
        raise NotReady(f"uv cannot be started: {error.strerror}", where=argv[0], hint="install it anew") from None
    if not done:
        raise _failure(done, words, source)
    for line in redacted(done.stderr).splitlines():
        if line.startswith("warning:"):
            work.notify(f"uv: {line}")


def _failure(done: process.Finished, words: Sequence[str], source: Path) -> NotReady:
    said = redacted(f"{done.stdout}\n{done.stderr}").strip()
    tail = "\n".join(said.splitlines()[-_TAIL:])
    what = f"uv {' '.join(words[:2])} did not end within {LIMIT:g} s" if done.timed_out else _first_error(said)
    details = {"uv said": tail or f"nothing; it ended with {done.code}"}
    if is_network(said) or done.timed_out or done.code < 0:
        hint = "see to the network, or name an index that this host reaches (UV_DEFAULT_INDEX), and provision again"
        return Passing(what, where=str(source), hint=hint, details=details)
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, said)), "mend what it says")
    error = Passing if re.search(_HINTS[1][0], said) else NotReady
    return error(what, where=str(source), hint=hint, details=details)


def is_network(said: str) -> bool:
    """Whether a program that said this failed for want of a network, or of what answers there."""
    return _NETWORK.search(said) is not None


def _first_error(said: str) -> str:
    for line in said.splitlines():
        marked = _ERROR.match(line)
        if marked:
            return f"uv could not make the environment: {marked[1].rstrip(':')}"
    return "uv could not make the environment"


def redacted(text: str) -> str:
    """Return `text` without the accounts of URLs and without the values of index accounts."""
    for name, value in os.environ.items():
        if _INDEX_ACCOUNT.fullmatch(name) and name.endswith("_PASSWORD") and value:
            text = text.replace(value, "***")
    return _CREDENTIALS.sub("***@", text)


def can_write(directory: Path) -> bool:
    """Whether `directory`, or the nearest one above it that exists, can be written to."""
    while not directory.exists():
        directory = directory.parent
    return os.access(directory, os.W_OK | os.X_OK)


def make(destination: Path, python: Path, source: Path, work: Work) -> None:
    """Make an empty virtual environment at `destination`.

    Raises:
        NotReady: It cannot be made.
    """
    words = ["venv", "--quiet", "--no-project", "--python", str(python), "--prompt", "python_env", str(destination)]
    run(words, source, work)


def install(destination: Path, words: Sequence[str], source: Path, work: Work, stdin: str | None = None) -> None:
    """Run `uv pip WORDS` for the environment at `destination`.

    Raises:
        NotReady: Something could not be installed.
    """
    verb, *rest = words
    run(["pip", verb, "--python", str(destination / "bin" / "python"), *rest], source, work, stdin=stdin)


def add(env: Path, file: Path, work: Work) -> None:
    """Install what the requirements file `file` lists into `env`, and nothing that it does not list.

    Raises:
        NotReady: Something could not be installed.
    """
    from pytest_multihost_env.provision import requirements

    hashes = ["--require-hashes"] if requirements.read(file).hashed else []
    work.progress.begin(f"installing {file.name}")
    try:
        install(env, ["install", "--no-deps", *hashes, "-r", str(file.absolute())], file, work)
    finally:
        work.progress.end()


@contextlib.contextmanager
def building(destination: Path, work: Work) -> Iterator[None]:
    """Show that something is installed into `destination`, and take it away when that fails."""
    work.progress.begin("installing")
    try:
        yield
    except BaseException:
        files.remove_tree(destination)
        raise
    finally:
        work.progress.end()
