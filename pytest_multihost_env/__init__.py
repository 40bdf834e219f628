"""The same proven Python environment on every host of a job, and pytest tests on the ranks that they ask for.

Importing this package imports neither pytest nor mpi4py.

PYTEST_DONT_REWRITE: it has no assertions to explain, and a rank has imported it before pytest could rewrite it.
"""

from pytest_multihost_env.errors import MultihostError
from pytest_multihost_env.model import Allocation, Host, Shape

__all__ = ["Allocation", "Host", "MultihostError", "Shape", "__version__"]

__version__ = "0.1.0"
