"""Variables that are not like others: owned by a launcher, able to run code, or secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pytest_multihost_env.model import Secret
from pytest_multihost_env.names import looks_secret

LAUNCHER_OWNED: Final = (
    # What tells a rank who it is, and ties it to its job: only the launcher knows the right value.
    "OMPI_",
    "OPAL_",
    "PMIX_",
    "PRTE_",
    "PMI_",
    "PMI2_",
    "HYDRA_",
    "HYDI_",
    "MPI_",
    "MPICH_",
    "MPIR_",
    "MPIEXEC_",
    "I_MPI_",
    "SLURM_",
    "PBS_",
    "FLUX_",
    "LSB_",
    "PALS_",
    # The same from wrappers that start ranks by themselves (torchrun and its kind).
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_",
    # Which devices this rank may use.
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    # What is different on every host.
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "HOSTNAME",
    "LOGNAME",
    "SHELL",
)
"""Names, and beginnings of names that end in `_`: a rank keeps what it was started with, the shell's never arrives."""

OF_ONE_RANK: Final = frozenset(
    {
        "RANK",
        "LOCAL_RANK",
        "NODE_RANK",
        "GROUP_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "SLURM_GTIDS",
    }
)
"""Not even the launcher gets these from the shell: its local children would inherit them and all be that one rank."""

MPI_SETTINGS: Final = ("OMPI_MCA_", "PMIX_MCA_", "MPICH_", "MPIR_CVAR_", "I_MPI_")
"""Beginnings of names by which a person steers an MPI library: what the shell has, the launcher is to send to its ranks."""
_OF_ONE_LAUNCH: Final = ("OMPI_MCA_ess_", "OMPI_MCA_orte_")
"""By these Open MPI 4.1 tells a rank who it is."""

_RUNS_CODE: Final = frozenset(
    {
        "BASH_ENV",
        "BASHOPTS",
        "CDPATH",
        "ENV",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        "IFS",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "LOCPATH",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PERL5DB",
        "PERL5LIB",
        "PERL5OPT",
        "PROMPT_COMMAND",
        "PS4",
        "PYTHONBREAKPOINT",
        "PYTHONEXECUTABLE",
        "PYTHONHOME",
        "PYTHONINSPECT",
        "PYTHONPLATLIBDIR",
        "PYTHONPYCACHEPREFIX",
        "PYTHONSTARTUP",
        "PYTHONUSERBASE",
        "PYTHONWARNINGS",  # its category is a name that is imported
        "RUBYLIB",
        "RUBYOPT",
        "SHELLOPTS",
        "ZDOTDIR",
        "__PYVENV_LAUNCHER__",
    }
)
_RUNS_CODE_PREFIXES: Final = ("BASH_FUNC_", "DYLD_", "GIT_", "LD_")
"""LD_LIBRARY_PATH is managed and so arrives all the same."""
_SHELL_STATE: Final = frozenset(
    {"_", "OLDPWD", "PWD", "SHLVL", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", "PYTEST_ADDOPTS"}
)
_LOGIN_IN_URL: Final = re.compile(r"(?<=://)[^/@\s]+@")
HIDDEN: Final = "***"


def mpi_setting(name: str) -> bool:
    """Return whether a person steers an MPI library by `name`."""
    return name.startswith(MPI_SETTINGS) and not name.startswith(_OF_ONE_LAUNCH)


def launcher_owned(name: str) -> bool:
    """Return whether a rank keeps what its launcher or host set for `name`."""
    return any(name.startswith(owned) if owned.endswith("_") else name == owned for owned in LAUNCHER_OWNED)


def runs_code(name: str) -> bool:
    """Return whether `name` can make a program run something else, or another interpreter."""
    return name in _RUNS_CODE or name.startswith(_RUNS_CODE_PREFIXES)


def never_automatic(name: str) -> str | None:
    """Return why `name` is passed only when it is named exactly; None for an ordinary variable."""
    if runs_code(name):
        return "can run code or change the interpreter"
    if name in _SHELL_STATE or name.startswith("MULTIHOST_ENV_"):
        return "belongs to this process"
    if launcher_owned(name):
        return "kept as the launcher or the host sets it"
    return None


def is_secret(name: str) -> bool:
    """Return whether the value of `name` is never to be shown (TOKEN, SECRET, PASSWORD, KEY and the like)."""
    return looks_secret(name)


def hides(name: str, value: str) -> bool:
    """Return whether a person may see only a part of `value`, or nothing of it."""
    return is_secret(name) or isinstance(value, Secret) or _LOGIN_IN_URL.search(value) is not None


def without_login(text: str) -> str:
    """Return `text` with the logins in its URLs hidden."""
    return _LOGIN_IN_URL.sub(f"{HIDDEN}@", text)


def shown(name: str, value: str) -> str:
    """Return `value` as a person may see it: secrets and logins in URLs as `***`, no control characters."""
    if is_secret(name) or isinstance(value, Secret):
        return HIDDEN
    value = without_login(value)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in value)


def redact_names(values: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of an environment that may be shown."""
    return {name: shown(name, value) for name, value in values.items()}
