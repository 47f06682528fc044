"""This layer's runner: slow rows run side by side, and the counts of rows are printed at the end."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from lib.agent import BUILD  # noqa: E402
from lib.fixtures import need_build  # noqa: E402

from rows import APPLY, LEFT_OUT  # noqa: E402

AT_ONCE = 10
_outcomes = {}


def pytest_configure(config):
    config.addinivalue_line("markers", "rows(*names): rows of the attack table that a test covers")


@pytest.fixture(scope="session", autouse=True)
def built():
    need_build()
    # Plays the keeper to the courier; not among what `make all` builds.
    subprocess.run(["make", "-s", "-C", str(BUILD), "tests/peers/courier_drive"], check=True, timeout=300, capture_output=True)


@pytest.fixture(scope="session")
def started(request):
    """Starts every selected case (a callable parameter named `case` with a run()) in a small pool."""
    pool = ThreadPoolExecutor(AT_ONCE)
    futures = {}
    for item in request.session.items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        if hasattr(case, "run"):
            futures[id(case)] = pool.submit(case.run)
    yield futures
    for future in futures.values():
        future.cancel()
    pool.shutdown(wait=True)


@pytest.fixture
def outcome(started):
    """Waits for one case; what its judgement raised is raised here."""
    return lambda case: started[id(case)].result(timeout=120)


def rows_of(item):
    found = set()
    for marker in item.iter_markers("rows"):
        found.update(marker.args)
    callspec = getattr(item, "callspec", None)
    case = callspec and callspec.params.get("case")
    row = getattr(case, "row", None)
    if row:
        found.add(row)
    return found


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    for row in rows_of(item):
        if report.when == "call" or report.failed or report.skipped:
            state = "failed" if report.failed else "skipped" if report.skipped else "passed"
            _outcomes.setdefault(row, []).append(state)


def pytest_terminal_summary(terminalreporter):
    for group, names in APPLY.items():
        names = names.split()
        good = [n for n in names if "passed" in _outcomes.get(n, []) and "failed" not in _outcomes[n]]
        cases = sum(_outcomes.get(n, []).count("passed") for n in names)
        missing = [n for n in names if n not in good]
        terminalreporter.write_line(f"rows of {group}: {len(good)} of {len(names)} covered by {cases} cases"
                                    + (f", without {' '.join(missing)}" if missing else ""))
    terminalreporter.write_line("left out: " + "; ".join(f"{rows} ({why})" for rows, why in LEFT_OUT.items()))


def pytest_make_parametrize_id(config, val, argname):
    row = getattr(val, "row", None)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{row}-{val.name}") if row else None
