"""Certificates that an interpreter brings: conda's Python, say, looks for them in its own prefix, which other hosts lack."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pytest_multihost_env.provision import records

HOOK = "multihost_certificates.pth"
_LINE = (
    "import os, sys; os.environ.setdefault('SSL_CERT_FILE', os.path.join(sys.base_prefix, 'ssl', 'cert.pem'))"
    "  # put there by pytest-multihost-env\n"
)
_SYSTEM = {"/", "/usr"}


def take(env: Path, base: Path, looked_for: Sequence[str]) -> str:
    """Put the certificates that lie in the original interpreter's prefix into `env` and return a sentence on them.

    What a system keeps stays each host's: there an administrator adds the certificates of the house.

    Args:
        env: The environment, whose interpreter lies at `env/py`.
        base: The prefix that the interpreter came from.
        looked_for: The file and the directory that OpenSSL was built to read.
    """
    file, folder = looked_for
    real, prefix = Path(os.path.realpath(file)), os.path.realpath(base)
    if prefix in _SYSTEM or not real.is_relative_to(prefix) or not real.is_file():
        return f"OpenSSL looks for certificates in {file} and {folder} of each host"
    copy = env / "py" / "ssl" / "cert.pem"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy2(real, copy)
    copy.chmod(0o644)
    for site in records.site_directories(env):
        (site / HOOK).write_text(_LINE, encoding="ascii")
    return f"certificates are those of {file}, unless SSL_CERT_FILE names others"
