"""What was asked for: options, variables, ini and the configuration file as one frozen `Settings`."""

from pytest_multihost_env.config.layers import load
from pytest_multihost_env.config.settings import Assignment, EnvironmentTable, Item, Settings
from pytest_multihost_env.config.table import ALL_PROFILES, BY_NAME, SETTINGS, Setting

__all__ = [
    "ALL_PROFILES",
    "BY_NAME",
    "SETTINGS",
    "Assignment",
    "EnvironmentTable",
    "Item",
    "Setting",
    "Settings",
    "load",
]
