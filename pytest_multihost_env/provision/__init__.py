"""Give every host the same proven environment: `ensure` makes it once, `verify` proves that it is unchanged."""

from pytest_multihost_env.provision.ensure import ensure, preview
from pytest_multihost_env.provision.garbage import Wish, collect
from pytest_multihost_env.provision.job import ProvisionRequest
from pytest_multihost_env.provision.pins import Pin, stay
from pytest_multihost_env.provision.recipe import Recipe
from pytest_multihost_env.provision.target import trusted_path
from pytest_multihost_env.provision.verify import Verified, verify

__all__ = [
    "Pin",
    "ProvisionRequest",
    "Recipe",
    "Verified",
    "Wish",
    "collect",
    "ensure",
    "preview",
    "stay",
    "trusted_path",
    "verify",
]
