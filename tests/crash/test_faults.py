"""
Each call with which the keeper opens or writes a file fails, once and from then on for good (HOSTILE.md, L5); and the warden's
while it runs hooks. Not the courier's and the desk's: one that can't be started for good is waited for 30 s, which is longer
than a try may take here.
"""

import errno

import pytest

import matrix
import scenarios

CHOSEN = (scenarios.FirstIssue, scenarios.Reload, scenarios.Mint, scenarios.Projected, scenarios.SecretSet, scenarios.MasterKey,
          scenarios.Redelivery, scenarios.Told, scenarios.Upgrade, scenarios.Migration, scenarios.Acme, scenarios.Client,
          scenarios.ClientTurns, scenarios.Session, scenarios.Target, scenarios.Watch)
PACED = (scenarios.Told, scenarios.Acme, scenarios.Client, scenarios.ClientTurns, scenarios.Session, scenarios.Target, scenarios.Watch)  # a try takes seconds: one error a point, each in its turn; all with KEYTURN_CRASH_ALL


def tries_of(points, program, paced):
    for i, point in enumerate(points):
        tries = [(mode, error) for error in matrix.errors_of(point) for mode in ("fail", "forever")]
        for mode, error in [tries[i % len(tries)]] if paced else tries:
            yield "fault", (mode, point[0], error, "wo", program), point


@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda s: s.__name__)
def test_fault(scenario, say):
    paced = scenario in PACED and not matrix.ALL_POINTS
    jobs, total = [], 0
    for program in scenario.failing:
        points = matrix.trace(scenario, "wo", program)
        total += len(points)
        jobs += tries_of(points, program, paced)
    hit, missed, bad, left = matrix.run(scenario, jobs)
    names = sorted({errno.errorcode[args[2]] for _, args, _ in jobs})
    say(f"fault {scenario.__name__}: {total} points, {hit} failures once or for good with {', '.join(names)}"
        f"{' (one of them a point)' if paced else ''}, {missed} not reached, {matrix.show_left(left)}{len(bad)} bad")
    assert not bad, matrix.show(bad)
    assert hit >= (len(jobs) - left) * 0.8, "most points must be reached"
