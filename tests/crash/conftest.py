"""Fixtures of this layer: the tools are built before the first test; the counts are printed after the last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))
sys.path.append(str(HERE.parent / "peers"))  # anypoint_standin

from lib.agent import BUILD  # noqa: E402
from lib.fixtures import need_build  # noqa: E402

import matrix  # noqa: E402

LINES = []


@pytest.fixture(scope="session", autouse=True)
def tools():
    need_build()
    done = subprocess.run(["make", "-s", "-C", BUILD, "tests/crash/killer", "tests/crash/newer/keyturn-keeper",
                           "tests/crash/failmalloc.so", "tests/crash/nosync.so"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    if subprocess.run([BUILD / "tests" / "crash" / "killer", "watch", "/bin/true"], capture_output=True).returncode == 77:
        pytest.skip("this machine lets nobody trace")


def pytest_collection_modifyitems(items):
    """Kills first: when the time is up, what is left out is of the others."""
    order = ("test_power", "test_kill", "test_faults", "test_alloc")
    items.sort(key=lambda item: order.index(item.path.stem) if item.path.stem in order else len(order))


def pytest_collection_finish(session):
    matrix.tests_left[0] = len(session.items)


def pytest_runtest_logfinish():
    matrix.tests_left[0] -= 1


@pytest.fixture
def say():
    """Keeps a line for the summary."""
    return LINES.append


def pytest_terminal_summary(terminalreporter):
    if LINES:
        terminalreporter.section("counts" + (" (all points)" if os.environ.get("KEYTURN_CRASH_ALL") else ""))
        for line in LINES:
            terminalreporter.line(line)
