"""kill -9 of everything right before and right after each call with which the keeper writes; then the same command again."""

import pytest

import matrix
import scenarios


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda s: s.__name__)
def test_kill(scenario, say):
    jobs, total = [], 0
    for program in scenario.programs:
        points = matrix.trace(scenario, "wm", program)
        total += len(points)
        for i, point in enumerate(matrix.sample(points, scenario.limit if program == "keyturn-keeper" else 20, scenario.__name__)):
            jobs.append(("kill", ("after" if i % 5 == 4 else "before", point[0], "wm", program), point))
    hit, missed, bad = matrix.run(scenario, jobs)
    say(f"kill {scenario.__name__}: {total} points, {hit} tried, {missed} not reached, {len(bad)} bad")
    assert not bad, matrix.show(bad)
    assert hit >= len(jobs) * 0.8, "most points must be reached"


def test_room(say):
    """The keeper alone dies: the warden starts it again, and the command goes on."""
    points = matrix.sample(matrix.trace(scenarios.FirstIssue, "wm"), 24, "room")
    hit, missed, bad = matrix.run(scenarios.FirstIssue, [("kill", ("room", p[0], "wm", "keyturn-keeper"), p) for p in points])
    say(f"keeper killed alone: {hit} tried, {len(bad)} bad")
    assert not bad, matrix.show(bad)
