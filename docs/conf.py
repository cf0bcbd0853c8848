"""Settings of Sphinx; the reference is written from the code before each build."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from generator.reference import write_pages  # noqa: E402 - the folder above has to be on the path first

import cfs_core  # noqa: E402 - as above

write_pages(HERE / "reference" / "generated")

project = "cfs"
author = "the authors of cfs"
release = version = cfs_core.__version__
extensions = ["myst_parser"]
exclude_patterns = ["_build", "examples", "generator", "**/.*"]
html_theme = "furo"
html_title = "cfs"
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # shell sessions are not quite any language
