"""How the documentation is built: `sphinx-build -W -b html docs OUT`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from pytest_multihost_env import __version__

project = "pytest-multihost-env"
author = "the contributors"
copyright = "the contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "multihost_docs"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]
smartquotes = False  # `--option` is no dash
autodoc_typehints = "description"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "pytest-multihost-env"
html_copy_source = False
