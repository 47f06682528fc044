"""Fixtures of this layer."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.agent import BUILD, Keyturn  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def built():
    assert (BUILD / "keyturn").exists(), f"there is no {BUILD}/keyturn: set KEYTURN_BUILD to a build folder"


@pytest.fixture
def kt():
    with Keyturn() as agent:
        yield agent
