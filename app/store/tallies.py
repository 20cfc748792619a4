"""What became of jobs, counted where it is written down: by kind, and by how long it took.

Rows of jobs go with their tasks, and workers come and go; these counts only grow, and a number
enters in the commit that makes it true. So every process tells the same, however many there are.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.store.tables import Tally

BOUNDS_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14_400)
"""Upper ends of all buckets but the last, which has none."""

Measure = Literal["wait", "run", "retry", "work"]
"""`wait`   from the request to the first start
`run`    from the first start to the end; `detail`: the state it ended in
`retry`  an attempt that came to nothing and is made again; `detail`: whose trouble it was
`work`   a worker at a job, to whatever end; `detail`: on what kind of device
"""


@dataclass(slots=True)
class Counted:
    """`buckets`: how many values lie in each of them."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_SECONDS) + 1))
    seconds: float = 0.0


def add(
    session: Session, measure: Measure, kind: str, detail: str = "", seconds: float = 0.0
) -> None:
    seconds = max(0.0, seconds)  # clocks of two machines may differ
    cell = {
        "measure": measure,
        "kind": kind,
        "detail": detail,
        "bucket": bisect_left(BOUNDS_SECONDS, seconds),
    }
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    new = dialect.insert(Tally).values(**cell, count=1, seconds=seconds)
    more = {"count": Tally.count + 1, "seconds": Tally.seconds + seconds}
    session.execute(new.on_conflict_do_update(index_elements=list(cell), set_=more))


def counted(session: Session, measure: Measure) -> dict[tuple[str, str], Counted]:
    """By (kind, detail)."""
    found: dict[tuple[str, str], Counted] = {}
    for tally in session.scalars(select(Tally).where(Tally.measure == measure)):
        cell = found.setdefault((tally.kind, tally.detail), Counted())
        cell.buckets[tally.bucket] = tally.count
        cell.seconds += tally.seconds
    return found
