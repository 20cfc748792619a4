"""Maps drawn anew where tasks came, changed or went: load, compute, apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from app.embedding import atlas as maps
from app.errors import DifferentSpaces
from app.store import atlas, reference
from app.store.atlas import Drawn, Place
from app.store.search import Indexes
from app.store.session import Database
from app.telemetry import log_event

TRUSTED = 20
"""Tasks from which a share of the ten nearest says something."""
SETTLED_AGAIN = 1.3
"""Times as many tasks as there were when all of them found their places."""
DRAWN_FROM_NOTHING = 4
"""One task of so many had a place before: where fewer had, a new map is a better one."""


def refresh(database: Database, indexes: Indexes, *, threads: int, stop: Callable[[], bool]) -> int:
    """Draws every map that is due, one after another; how many were drawn.

    `stop`  whether to leave it at those drawn so far
    """
    with database.session(read_only=True) as session:
        empty, due = atlas.empty(session), atlas.due(session)
    if empty:  # the write lock is not worth asking for otherwise
        with database.session() as session:
            atlas.drop(session, empty)
    drawn = 0
    for tenant, space_id in due:
        if stop():
            break
        drawn += _draw(database, indexes, tenant, space_id, threads)
    return drawn


def _draw(database: Database, indexes: Indexes, tenant: str, space_id: str, threads: int) -> bool:
    with database.session(read_only=True) as session:
        spots = atlas.spots(session, tenant, space_id)
        earlier, n_settled = atlas.places(session, tenant, space_id)
        tags = atlas.tags(session, spots)
        known = {place.spot: place for place in earlier}
        fresh = [spot for spot in spots if spot not in known]
        complexities = atlas.complexities(session, fresh)
        population = reference.population(session, space_id)
        try:
            index, unindexed = indexes.followed(session, space_id, population)
        except DifferentSpaces:
            return False
    if index is None or unindexed.count:  # it is being taken in; the next turn finds it there
        return False

    seqs = np.array([spot.embedding_seq for spot in spots], np.int64)
    every, of_spot = np.unique(seqs, return_inverse=True)  # tasks of the same bytes share one
    points = index.points(every)
    at = np.full((len(every), 2), np.nan)
    for spot, row in zip(spots, of_spot.tolist(), strict=True):
        if spot in known:
            at[row] = known[spot].x, known[spot].y
            complexities[spot.embedding_seq] = known[spot].complexity
    here = ~np.isnan(at[:, 0])
    k = maps.neighbours_of(len(every))
    if here.sum() < max(maps.FEW + 1, len(every) / DRAWN_FROM_NOTHING):
        at = maps.first_map(index.nearest(every, k), points, threads=threads)
        n_settled = len(every)
    elif not here.all():
        near = index.nearest(every[~here], maps.neighbours_of(int(here.sum())), onto=every[here])
        at[~here] = maps.placed(near, at[here])
        if len(every) > SETTLED_AGAIN * n_settled:
            at = maps.settled(index.nearest(every, k), at, threads=threads)
            n_settled = len(every)
    positions, points = at[of_spot], points[of_spot]
    labels = maps.clusters_of(positions)
    drawn = Drawn(
        n_settled=n_settled,
        clusters=[asdict(each) for each in maps.described(labels, positions, tags)],
        dendrogram=[list(row) for row in maps.dendrogram(points, labels)],
        trustworthiness=maps.trustworthiness(points, positions) if len(spots) >= TRUSTED else None,
    )
    places = [
        Place(
            spot,
            float(x),
            float(y),
            None if label == maps.NOWHERE else int(label),
            complexities[spot.embedding_seq],
        )
        for spot, (x, y), label in zip(spots, positions, labels.tolist(), strict=True)
    ]
    with database.session() as session:
        atlas.draw(session, tenant, space_id, places, drawn)
    log_event("atlas.drawn", space_id=space_id, tasks=len(spots), clusters=len(drawn.clusters))
    return True
