"""What several launchers need to say alike."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_multihost_env.model import LaunchSpec


def ssh_options(silence: int) -> tuple[str, ...]:
    """Return what ssh is told, for hosts that are lost after `silence` seconds (ssh_config(5)).

    A password prompt would hang the run.
    """
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": max(2, silence // 2),
        "ServerAliveInterval": max(1, silence // 4),
        "ServerAliveCountMax": 3,
    }
    return tuple(word for name, value in options.items() for word in ("-o", f"{name}={value}"))


def open_mpi_settings(*, five: bool) -> dict[str, str]:
    """Return what Open MPI's library is told, whoever starts the ranks."""
    return {
        # Without it MPI_Init of Open MPI 5 sleeps for a second; 4.1 knows the same transport by another name.
        "OMPI_MCA_btl": "self,sm,tcp" if five else "self,vader,tcp",
        # Tests often have more ranks than cores; a spinning rank would starve the one that it waits for.
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }


def host_counts(spec: LaunchSpec, name: str = "localhost") -> str:
    """Return `n1:2,n2:2`, in rank order; `name:N` when every rank runs here, so that nothing is resolved."""
    if spec.local_only:
        return f"{name}:{spec.placement.size}"
    return ",".join(f"{host}:{count}" for host, count in spec.placement.counts)


def unless_given(extra: Sequence[str], names: Sequence[str], *ours: str) -> tuple[str, ...]:
    """Return the words `ours`, or none when the user's arguments have one of the options `names`.

    mpirun refuses an option that stands there twice, and other launchers take one of them in silence.
    """
    keys = {name.lstrip("-") for name in names}
    given = {word.lstrip("-").partition("=")[0] for word in extra if word.startswith("-")}
    return () if keys & given else ours


def without(extra: Sequence[str], option: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the values that the user's arguments give to `option`, and the other arguments."""
    values: list[str] = []
    others: list[str] = []
    words = iter(extra)
    for word in words:
        name, joined, value = word.partition("=")
        if name.startswith("-") and name.lstrip("-") == option.lstrip("-"):
            values.append(value if joined else next(words, ""))
        else:
            others.append(word)
    return tuple(values), tuple(others)
