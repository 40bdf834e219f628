"""The same proven Python environment on every host of a job, and pytest tests on the ranks that they ask for.

Importing this package imports neither pytest nor mpi4py, and its own parts only when one asks for them: every run of
pytest on a machine where it is installed imports it.

PYTEST_DONT_REWRITE: it has no assertions to explain, and a rank has imported it before pytest could rewrite it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_multihost_env.errors import MultihostError
    from pytest_multihost_env.model import Allocation, Host, Shape

__all__ = ["Allocation", "Host", "MultihostError", "Shape", "__version__"]

__version__ = "0.1.0"


_HOMES = {"MultihostError": "errors", "Allocation": "model", "Host": "model", "Shape": "model"}


def __getattr__(name: str) -> object:
    """Return a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
