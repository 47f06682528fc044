"""Each call with which the keeper opens or writes a file fails, once and from then on for good (HOSTILE.md, L5)."""

import errno

import pytest

import matrix
import scenarios

CHOSEN = (scenarios.FirstIssue, scenarios.Reload, scenarios.Mint, scenarios.Projected, scenarios.SecretSet, scenarios.MasterKey,
          scenarios.Redelivery)


@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda s: s.__name__)
def test_fault(scenario, say):
    points = matrix.trace(scenario, "wo")
    jobs, names = [], set()
    for i, point in enumerate(matrix.sample(points, scenario.limit // 3, scenario.__name__)):
        errors = matrix.errors_of(point)
        for k, mode in enumerate(("fail", "forever")):
            for error in errors if matrix.ALL_POINTS else (errors[(i + k) % len(errors)],):
                names.add(errno.errorcode[error])
                jobs.append(("fault", (mode, point[0], error, "wo", "keyturn-keeper"), point))
    hit, missed, bad = matrix.run(scenario, jobs)
    say(f"fault {scenario.__name__}: {len(points)} points, {hit} tried once or for good with {', '.join(sorted(names))}, "
        f"{missed} not reached, {len(bad)} bad")
    assert not bad, matrix.show(bad)
    assert hit >= len(jobs) * 0.8, "most points must be reached"
