"""Walks through the points of a scenario, in more processes than there are processors: much of a try is waiting."""

import errno
import multiprocessing
import os
import random
import time
import traceback

import lib.wait
from common import House, Torn, wait_a_moment

ALL_POINTS = bool(os.environ.get("KEYTURN_CRASH_ALL"))
BUDGET = 60 * float(os.environ.get("KEYTURN_CRASH_MINUTES", "9"))  # of all scenarios together; no limit with KEYTURN_CRASH_ALL
SHARE = 6  # seconds that a scenario gets when the budget is used up
STARTED = time.monotonic()
WORKERS = min(6 * (os.cpu_count() or 1), 24)
SLOWEST = 10  # seconds in which a command that met a fault must have ended


class Walk:
    """One scenario in one process: the base, and a try at one point after another."""

    def __init__(self, scenario):
        self.house = House()
        self.scenario = scenario(self.house)
        self.scenario.prepare()
        self.known = self.house.obtained() if (self.house.state / "state.db").exists() else {}
        self.scenario.change()
        self.house.keep()
        self.before = self.house.served()
        self.house.back()

    def close(self):
        self.scenario.close()
        self.house.__exit__()

    def begin(self):
        self.house.back()
        self.scenario.begin()

    def trace(self, classes, program="keyturn-keeper"):
        self.begin()
        seen = self.house.under(["trace"], *self.scenario.command, classes=classes, program=program, timeout=60)
        if seen.result.status not in (self.scenario.ends if self.scenario.partial is None else (self.scenario.partial,)) or seen.died:
            raise Torn(f"the scenario itself fails: {seen.died} {seen.result!r}")
        if self.scenario.partial is not None:
            self.finish()
        self.complete()
        return seen.points

    def live(self):
        """At any moment: what is served is whole, and what was served before is not gone."""
        served = self.house.served()
        for name, what in self.before.items():
            if what and name not in served and self.scenario.__class__.__name__ != "Expired":
                raise Torn(f"{name} served {what}, now nothing")
        self.scenario.live()
        return served

    def finish(self):
        """The same command until it is through."""
        last = None
        self.scenario.between()
        for turn in range(3):
            last = self.house.under(["watch"], *(self.scenario.again or self.scenario.command), timeout=60)
            if last.died:
                raise Torn(f"died at the restart: {last.died} {last.result!r}")
            if last.result.status in self.scenario.ends:
                return
            self.live()
            wait_a_moment()
        raise Torn(f"still not through after three tries: {last.result!r}")

    def complete(self):
        """What must hold in the end."""
        served = self.live()
        for name in self.scenario.served:
            if not served.get(name):
                raise Torn(f"{name} serves nothing in the end")
        verified = self.house.run("audit", "--verify")
        if verified.status != 0:
            raise Torn(f"{verified!r}")
        obtained = self.house.obtained()
        for name, (least, most) in self.scenario.new.items():
            fresh = obtained.get(name, [])[len(self.known.get(name, [])):]
            if not least <= len(fresh) <= most:
                raise Torn(f"{name}: {len(fresh)} obtained in one renewal: {fresh}")
        for name, found in obtained.items():
            if len({revision for revision, _ in found}) != len(found):
                raise Torn(f"{name}: two certificates in one revision: {found}")
        left, _ = self.house.leftovers()
        if left:
            raise Torn(f"left behind: {left}")
        if self.scenario.ends == (0,):
            for name, row in self.house.rows().items():
                what = served.get(row["secretName"])
                if row["attempts"] or row["lastError"]:
                    raise Torn(f"stuck: {row}")
                if row["kind"] == "Watch":  # it delivers nothing
                    continue
                expected = (row.get("serial") or row.get("tokenId") or "").lstrip("0")
                if expected and what != expected:
                    raise Torn(f"{name}: the store says {expected}, served is {what}")
        self.scenario.check()
        if self.scenario.sweeps:
            self.sweep(self.live())

    def sweep(self, served):
        """What was kept for a while goes, what is served stays."""
        done = self.house.later("renew")
        if not done:
            return
        if done.status != 0:
            raise Torn(f"two minutes later: {done!r}")
        if self.house.served() != served:
            raise Torn(f"two minutes later {self.house.served()} is served instead of {served}")
        left, generations = self.house.leftovers()
        for minutes in (4, 6):
            if any(count > 1 for count in generations.values()):  # what a command for another one left alone was written just now
                self.house.later("renew", minutes=minutes)
                left, generations = self.house.leftovers()
        if left or any(count > 1 for count in generations.values()):
            raise Torn(f"never swept: {left} {generations}")

    # --- one point

    def kill(self, mode, number, classes, program):
        self.begin()
        done = self.house.under([mode, number], *self.scenario.command, classes=classes, program=program, timeout=60)
        if done.died:
            raise Torn(f"died of {done.died}")
        self.live()
        if done.result.status == 137 or (done.points and mode != "room") or self.scenario.partial is not None:
            self.finish()
        elif mode == "room":
            if done.result.status not in self.scenario.ends:
                self.finish()
        elif done.result.status not in self.scenario.ends:
            raise Torn(f"not reached, and: {done.result!r}")
        self.complete()
        return bool(done.points)

    def fault(self, mode, number, number_of_error, classes, program):
        self.scenario.faulty = True
        self.begin()
        done = self.house.under([mode, number, number_of_error], *self.scenario.command, classes=classes, program=program, timeout=60)
        if done.died:
            raise Torn(f"died of {done.died}: {done.result!r}")
        if done.result.seconds > SLOWEST:
            raise Torn(f"took {done.result.seconds:.1f} s: {done.result!r}")
        self.live()
        if done.result.status not in self.scenario.ends:
            if not done.result.err.strip():
                raise Torn(f"fails without a word: {done.result!r}")
            self.finish()
        try:
            self.complete()
        except Torn as torn:
            raise Torn(f"{torn}\nafter {done.result!r}") from None
        return bool(done.points)


tests_left = [1]  # conftest.py counts them


def time_left():
    """Seconds that a scenario may still take: three times its share of what is left of the budget, and a few even of none."""
    if ALL_POINTS:
        return float("inf")
    left = STARTED + BUDGET - time.monotonic()
    return max(SHARE, min(left, 3 * left / max(1, tests_left[0])))


def _worker(scenario, jobs, taken, until, pipe):
    lib.wait.ctypes.CDLL(None).prctl(lib.wait._PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    walk = None
    try:
        walk = Walk(scenario)
        while True:
            with taken.get_lock():
                mine, taken.value = taken.value, taken.value + 1
            if mine >= len(jobs) or time.monotonic() > until:
                break
            method, args, point = jobs[mine]
            try:
                pipe.send((point, args, getattr(walk, method)(*args), None))
            except AssertionError as error:
                pipe.send((point, args, True, str(error)[:3000]))
    except BaseException:
        pipe.send((None, None, False, traceback.format_exc()[-3000:]))
    finally:
        if walk:
            walk.close()
        pipe.send(None)
        pipe.close()


def run(scenario, jobs):
    """
    Tries every job (method of Walk, arguments, point), in no order, so that what fits into the time is a fair sample when
    not all does. Returns how many points were reached, how many not, what was bad, and how many there was no time for.
    """
    jobs = list(jobs)
    random.Random(len(jobs)).shuffle(jobs)
    until = time.monotonic() + time_left()
    context = multiprocessing.get_context("fork")
    workers, taken = [], context.Value("l", 0)
    for _ in range(min(WORKERS, 1 + len(jobs) // 4)):
        here, there = context.Pipe(False)
        process = context.Process(target=_worker, args=(scenario, jobs, taken, until, there))
        process.start()
        there.close()
        workers.append((process, here))
    hit, missed, bad = 0, 0, []
    for process, pipe in workers:
        while True:
            try:
                answer = pipe.recv()
            except EOFError:
                bad.append((None, None, "a worker ended without a word"))
                break
            if answer is None:
                break
            point, args, reached, why = answer
            hit, missed = hit + bool(reached), missed + (not reached)
            if why:
                bad.append((point, args, why))
        process.join()
    return hit, missed, bad, max(0, len(jobs) - hit - missed)


def trace(scenario, classes, program="keyturn-keeper"):
    walk = Walk(scenario)
    try:
        return walk.trace(classes, program)
    finally:
        walk.close()


def show_left(left):
    return f"{left} without time, " if left else ""


def show(bad, most=4):
    return f"{len(bad)} bad:\n" + "\n".join(f"* {args} {point}: {why}" for point, args, why in bad[:most])


# --- which error a call may give

FULL = (errno.ENOSPC, errno.EIO, errno.EROFS)
ERRORS = {"fsync": (errno.EIO, errno.ENOSPC), "fdatasync": (errno.EIO, errno.ENOSPC), "pwrite64": (errno.ENOSPC, errno.EIO),
          "write": (errno.ENOSPC, errno.EIO), "fchmod": (errno.EROFS, errno.EIO), "fchown": (errno.EROFS, errno.EIO),
          "unlink": (errno.EROFS, errno.EIO), "unlinkat": (errno.EROFS, errno.EIO)}


def errors_of(point):
    _, kind, call, _ = point
    if call.startswith("openat"):
        return (errno.EMFILE, errno.ENFILE, errno.EIO) if kind == "o" else (*FULL, errno.EMFILE)
    return ERRORS.get(call, FULL)
