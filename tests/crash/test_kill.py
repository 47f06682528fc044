"""
kill -9 of everything right before each call with which a room writes, and right after each message, which the other side
may have taken; then the same command again. And of one room alone, right before each: the others go on.
"""

import pytest

import matrix
import scenarios

ALONE = {scenarios.FirstIssue: ("keyturn-keeper",), scenarios.Acme: ("keyturn-courier", "keyturn-desk"),
         scenarios.AcmeRecord: ("keyturn-courier",), scenarios.Client: ("keyturn-keeper", "keyturn-courier"),
         scenarios.Session: ("keyturn-courier",), scenarios.Target: ("keyturn-courier",), scenarios.Watch: ("keyturn-keeper",)}


def room(program):
    return {"keyturn": "warden"}.get(program, program.removeprefix("keyturn-"))


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda s: s.__name__)
def test_kill(scenario, say):
    jobs, totals = [], []
    for program in scenario.programs:
        points = matrix.trace(scenario, "wm", program)
        totals.append(f"{len(points)} points of the {room(program)}")
        jobs += [("kill", ("before", p[0], "wm", program), p) for p in points]
        jobs += [("kill", ("after", p[0], "wm", program), p) for p in points if p[1] == "m" or p is points[-1]]
    hit, missed, bad, left = matrix.run(scenario, jobs)
    say(f"kill {scenario.__name__}: {', '.join(totals)}; {hit} kills before each and after each message, {missed} not reached, "
        f"{matrix.show_left(left)}{len(bad)} bad")
    assert not bad, matrix.show(bad)
    assert hit >= (len(jobs) - left) * 0.9, "most points must be reached"


@pytest.mark.parametrize("scenario", ALONE, ids=lambda s: s.__name__)
def test_room(scenario, say):
    """One room alone dies: the warden starts it again, and the command goes on."""
    for program in ALONE[scenario]:
        points = matrix.trace(scenario, "wm", program)
        hit, missed, bad, left = matrix.run(scenario, [("kill", ("room", p[0], "wm", program), p) for p in points])
        say(f"{room(program)} killed alone, {scenario.__name__}: {len(points)} points, {hit} kills, {missed} not reached, "
            f"{matrix.show_left(left)}{len(bad)} bad")
        assert not bad, matrix.show(bad)
        assert hit >= (len(points) - left) * 0.9, "most points must be reached"
