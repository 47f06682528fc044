"""Fixtures of this layer."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.fixtures import built, kt  # noqa: E402, F401
