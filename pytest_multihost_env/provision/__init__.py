"""Give every host the same proven environment: `ensure` makes it once, `verify` proves that it is unchanged."""

from pytest_multihost_env.provision.ensure import ensure, preview
from pytest_multihost_env.provision.garbage import Wish, collect
from pytest_multihost_env.provision.job import ProvisionRequest, trust_of
from pytest_multihost_env.provision.pins import Pin, stay
from pytest_multihost_env.provision.recipe import Recipe
from pytest_multihost_env.provision.trust import Trust, trusted_path
from pytest_multihost_env.provision.verify import Verified, verify

__all__ = [
    "Pin",
    "ProvisionRequest",
    "Recipe",
    "Trust",
    "Verified",
    "Wish",
    "collect",
    "ensure",
    "preview",
    "stay",
    "trust_of",
    "trusted_path",
    "verify",
]
