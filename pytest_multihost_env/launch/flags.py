"""What several launchers need to say alike."""

from __future__ import annotations

from pytest_multihost_env.model import LaunchSpec

SSH_OPTIONS = (
    "-o", "BatchMode=yes",
    "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3",
)  # fmt: skip
"""A password prompt would hang the run; a silent host is noticed after 15 s (ssh_config(5))."""


def host_counts(spec: LaunchSpec, name: str = "localhost") -> str:
    """Return `n1:2,n2:2`, in rank order; `name:N` when every rank runs here, so that nothing is resolved."""
    if spec.local_only:
        return f"{name}:{spec.placement.size}"
    return ",".join(f"{host}:{count}" for host, count in spec.placement.counts)
