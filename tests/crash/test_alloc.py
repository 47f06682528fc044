"""
The n-th allocation of the keeper fails, once or from then on for good.

Every way through our own code that leads to an allocation (the program's functions on the stack) is tried at least once; of
those behind which a library allocates thousands of times, more are tried here and there. KEYTURN_CRASH_ALL tries every n.
"""

import bisect
import multiprocessing
import os
import random
import re
import struct
import subprocess
from collections import Counter, defaultdict

import pytest

import matrix
import scenarios
from common import BUILD, Torn

SHIM = BUILD / "tests" / "crash" / "failmalloc.so"
SPREAD = 60    # further points of each scenario, wherever they are
FOREVER = 16   # points of each scenario from which on no allocation succeeds
CHOSEN = (scenarios.FirstIssue, scenarios.Reload, scenarios.Mint, scenarios.Projected, scenarios.Told, scenarios.AcmeRecord, scenarios.Client)

# What libraries do not survive: (library, how it died, function of ours that called it or None for any) -> why. The warden
# starts the keeper again, and the command goes on.
KNOWN = {
    ("libcrypto", 11, "kt_pki_init"): "OpenSSL 3.0 crashes while it makes its default library context",
    ("libuv", 6, None): "libuv gives up when it can't grow its table of watched descriptors",
}


def known(blame, died):
    library, ours = blame
    numbers = {int(d.split()[0]) for d in died} - {9}  # the warden kills a room that does not answer
    return all((library, n, None) in KNOWN or (library, n, ours) in KNOWN for n in numbers)


deaths = multiprocessing.get_context("fork").SimpleQueue()  # (library, function of ours) of those, from the workers
tried = set()  # ways that an earlier scenario has been through


class Symbols:
    """Names of the keeper's own functions by address."""

    def __init__(self):
        out = subprocess.run(["nm", "--defined-only", "-n", BUILD / "keyturn-keeper"], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in out.splitlines()]
        rows = [(int(r[0], 16), r[2]) for r in rows if len(r) == 3 and r[1] in "tTwW"]
        self.starts, self.names = [r[0] for r in rows], [r[1] for r in rows]

    def name(self, address):
        at = bisect.bisect_right(self.starts, address) - 1
        return self.names[at] if at >= 0 else "?"

    def blame(self, trace):
        """(library that asked, our function that called it) of a trace as failmalloc.c writes it."""
        library = None
        for line in trace.splitlines():
            found = re.match(r".*?([^/]+?)\(([^)]*)\)\[", line)
            if not found or "failmalloc" in found[1]:
                continue
            if found[1].startswith("keyturn-keeper"):
                if library:
                    return library, self.name(int(found[2].rsplit("+", 1)[1], 16)) if "+" in found[2] else "?"
            elif not library:
                library = re.sub(r"\.so.*", "", found[1])
        return library, "?"


def setting(walk, number, forever):
    near = walk.house.root.with_name
    counter, trace = near(walk.house.root.name + ".count"), near(walk.house.root.name + ".callers")
    counter.write_bytes(bytes(8))
    trace.unlink(missing_ok=True)
    return counter, trace, {
        "KEYTURN_TEST_ENV": "1", "LD_PRELOAD": str(SHIM), "KEYTURN_TEST_ALLOC_PROGRAM": "keyturn-keeper",
        "KEYTURN_TEST_ALLOC_FAIL": str(number), "KEYTURN_TEST_ALLOC_FOREVER": "1" if forever else "0",
        "KEYTURN_TEST_ALLOC_COUNT": str(counter), "KEYTURN_TEST_ALLOC_TRACE" if number else "KEYTURN_TEST_ALLOC_SITES": str(trace)}


def run_with(walk, number, forever):
    """What came of it, how many allocations there were, and what was written about them."""
    walk.begin()
    counter, trace, env = setting(walk, number, forever)
    try:
        done = walk.house.under(["watch"], *walk.scenario.command, env=env, timeout=15)
        return done, struct.unpack("<Q", counter.read_bytes())[0], trace.read_bytes() if trace.exists() else b""
    finally:
        counter.unlink()
        trace.unlink(missing_ok=True)


def alloc(walk, number, forever):
    done, count, trace = run_with(walk, number, forever)
    blame = walk.symbols.blame(trace.decode())
    if done.died and not known(blame, done.died):
        raise Torn(f"died of {done.died} in {blame}: {done.result!r}\n{trace.decode()}")
    if done.result.seconds > matrix.SLOWEST:
        raise Torn(f"took {done.result.seconds:.1f} s: {done.result!r}")
    walk.live()
    if done.result.status not in walk.scenario.ends:
        if not done.result.err.strip():
            raise Torn(f"fails without a word: {done.result!r}")
        walk.finish()
    elif forever and count >= number:
        raise Torn(f"did everything without memory: {done.result!r}")
    try:
        walk.complete()
    except Torn as torn:
        raise Torn(f"{torn}\nafter {done.result!r}") from None
    if done.died:
        deaths.put(blame)
    return count >= number


def no_longer(walk, number, forever):
    try:
        walk.symbols
    except AttributeError:
        walk.symbols = Symbols()
    try:
        return alloc(walk, number, forever)
    except Torn as torn:
        raise Torn(f"{torn}\nthe {number}-th{' and all after it' if forever else ''}") from None


matrix.Walk.alloc = no_longer


def ways_of(scenario):
    """One hash for each allocation of an undisturbed run: the way through our code that it was asked for on."""
    walk = matrix.Walk(scenario)
    try:
        done, count, sites = run_with(walk, 0, False)
        assert done.result.status == 0, repr(done.result)
        found = struct.unpack(f"<{len(sites) // 8}Q", sites)
        assert count == len(found) > 500, "the keeper's allocations are not seen"
        return found
    finally:
        walk.close()


def choose(scenario, ways):
    """Of each way that is new the first allocation and another; besides them some wherever they are."""
    dice = random.Random(scenario.__name__)
    by_way = defaultdict(list)
    for number, way in enumerate(ways, 1):
        by_way[way].append(number)
    chosen = set(dice.sample(range(1, len(ways) + 1), min(SPREAD, len(ways))))
    for way, numbers in by_way.items():
        if way not in tried:
            chosen |= {numbers[0], dice.choice(numbers)}
    new = len(by_way.keys() - tried)
    tried.update(by_way)
    return sorted(chosen), len(by_way), new


@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda s: s.__name__)
def test_alloc(scenario, say):
    ways = ways_of(scenario)
    chosen, count, new = choose(scenario, ways)
    for_good = random.Random(scenario.__name__ + "!").sample(range(1, len(ways) + 1), FOREVER)
    if matrix.ALL_POINTS:
        chosen = for_good = range(1, len(ways) + 1)
    seen, bad = Counter(), []
    for forever, numbers in ((False, chosen), (True, for_good)):
        jobs = [("alloc", (n, forever), ("alloc", n)) for n in numbers]
        hit, missed, wrong, left = matrix.run(scenario, jobs)
        bad += wrong
        seen[forever], seen["missed"], seen["left"] = hit, seen["missed"] + missed, seen["left"] + left
    known = Counter()
    while not deaths.empty():
        known[deaths.get()] += 1
    say(f"alloc {scenario.__name__}: {len(ways)} allocations on {count} ways through our code, {new} of them new; failed once: {seen[False]}, "
        f"for good: {seen[True]}; {seen['missed']} not reached, {matrix.show_left(seen['left'])}{len(bad)} bad")
    for (library, ours), times in sorted(known.items(), key=str):
        say(f"alloc {scenario.__name__}: {times} times the keeper was started again: {library} in {ours} does not survive it")
    assert not bad, matrix.show(bad)
