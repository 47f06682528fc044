"""Fixtures that the layers share; a conftest.py imports those that it wants."""

import pytest

from .agent import BUILD, Keyturn


def need_build():
    assert (BUILD / "keyturn").exists(), f"there is no {BUILD}/keyturn: set KEYTURN_BUILD to a build folder"


@pytest.fixture(scope="session", autouse=True)
def built():
    need_build()


@pytest.fixture
def kt():
    with Keyturn() as agent:
        yield agent
