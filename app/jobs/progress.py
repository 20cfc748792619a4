"""How far a job is, told to its row; what comes back is whether its user took it back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from app import tracing
from app.errors import Cancelled
from app.jobs.engine import HandBack
from app.store import jobs
from app.store.jobs import Start
from app.store.session import Database
from app.telemetry import log_event

SHARES = {"intake": 0.02, "features": 0.08, "head": 0.10, "fisher": 0.80}
"""A job's time by phase, in order (default probe, CPU): for phases not yet measured."""

TRAINING = "training"
SCORING = "looking through candidates"
PREDICTING = "predicting"
FETCHING = "fetching weights"
"""Of which nobody knows how long it takes."""
_STEADY = (TRAINING, SCORING, PREDICTING)
"""Phases of many steps, each about like the last."""

EVIDENCE_SECONDS = 1.0  # before that, speeds are noise and no forecast is given
EVIDENCE_SHARE = 0.1  # of a phase, before its own speed is believed

Clock = Callable[[], float]


class Forecast:
    """Seconds left: the present phase at its own measured speed, the later ones by SHARES of it."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._phase = ""
        self._phase_began = self._heard_at = clock()
        self._seconds_before = 0.0  # in phases already over
        self._share_before = 0.0
        self._first_done = 0  # of the phase, as it was first heard of

    def remaining_seconds(self, phase: str, done: int, total: int) -> float | None:
        """To be told of every report; None while there is nothing to go by."""
        now = self._clock()
        if phase != self._phase:
            # A phase's first report comes when some of it is done, so it began at the one before.
            if self._phase in SHARES:
                self._seconds_before += self._heard_at - self._phase_began
                self._share_before += SHARES[self._phase]
            self._phase, self._phase_began = phase, self._heard_at
            if phase in _STEADY:  # loading a network and looking at images is no step
                self._phase_began = now
            self._first_done = done
        self._heard_at = now
        seconds_here = now - self._phase_began
        if phase in _STEADY:  # from wherever a checkpoint was
            steps = done - self._first_done
            known = steps > 0 and seconds_here >= EVIDENCE_SECONDS
            return seconds_here * (total - done) / steps if known else None
        if phase not in SHARES or total <= 0:
            return None
        share_here = SHARES[phase] * done / total
        seconds = self._seconds_before + seconds_here
        share = self._share_before + share_here
        if seconds < EVIDENCE_SECONDS or share <= 0:
            return None
        seconds_per_share = seconds / share
        if done / total >= EVIDENCE_SHARE:
            rest_here = seconds_here * (total - done) / done
        else:
            rest_here = (SHARES[phase] - share_here) * seconds_per_share
        names = list(SHARES)
        later = sum(SHARES[name] for name in names[names.index(phase) + 1 :])
        return rest_here + later * seconds_per_share


class Progress:
    """Called after every batch with (phase, done, total).

    A database that is busy or away does not stop the work: the next report tells more, and asks
    again whether to stop. Raises Cancelled where the user took the job back, HandBack where the
    worker is to stop, and Conflict `stale-token` where the job is no longer this worker's.
    """

    def __init__(
        self,
        database: Database,
        start: Start,
        *,
        interval_seconds: float,
        stopping: Callable[[], bool],
    ) -> None:
        self._database = database
        self._start = start
        self._interval_seconds = interval_seconds
        self._stopping = stopping
        self._forecast = Forecast()
        self._phase = ""
        self._told_at = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        if self._stopping():
            raise HandBack
        tracing.phase(phase)
        remaining = self._forecast.remaining_seconds(phase, done, total)
        now = time.monotonic()
        if phase == self._phase and now - self._told_at < self._interval_seconds:
            return
        self._phase, self._told_at = phase, now
        try:
            with self._database.session() as session:
                cancel_requested = jobs.report_progress(
                    session, self._start.job_id, self._start.token, phase, done, total, remaining
                )
        except OperationalError:
            log_event(
                "job.progress_not_told",
                level=logging.WARNING,
                exc_info=True,
                job_id=self._start.job_id,
            )
            return
        if cancel_requested:
            raise Cancelled(
                "job-cancelled",
                "The job was cancelled by its user.",
                "Nothing to do; send the request again if that was not meant.",
            )
