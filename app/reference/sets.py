"""Pools of pictures with facts, and the labelled sets that asking a question of them gives."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from PIL import Image

from app.embedding.dataset import LabelKind
from app.reference import pictures

LEAST_PER_LABEL = 5


@dataclass(frozen=True, slots=True)
class Picture:
    """One image file and what is known of it; `key` names it within its source."""

    key: str
    data: bytes
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """A task of the reference library before it is embedded; multi-labels are joined by `|`."""

    name: str
    tags: tuple[str, ...]
    source: str
    licence: str
    label_kind: LabelKind
    images: tuple[tuple[str, bytes], ...]

    @property
    def digest(self) -> str:
        """Of labels and image bytes: all of the set that decides its embedding."""
        state = hashlib.sha256(self.label_kind.encode())
        for label, data in self.images:
            state.update(f"\n{label}\n".encode())
            state.update(hashlib.sha256(data).digest())
        return state.hexdigest()

    def archive(self) -> io.BytesIO:
        """The set as a user would upload it: flat images and a `labels.csv`, zipped."""
        buffer, table = io.BytesIO(), io.StringIO()
        rows = csv.writer(table)
        rows.writerow(("file", "label"))
        with zipfile.ZipFile(buffer, "w") as files:
            for i, (label, data) in enumerate(self.images):
                rows.writerow((f"{i:04}.png", label))
                files.writestr(f"{i:04}.png", data)
            files.writestr("labels.csv", table.getvalue())
        buffer.seek(0)
        return buffer


@dataclass(frozen=True, slots=True)
class Pool:
    """Pictures of one kind and style, of which several questions are asked."""

    source: str
    licence: str
    tags: tuple[str, ...]
    pictures: tuple[Picture, ...]

    def where(self, *, most: int | None = None, **facts: str | Iterable[str]) -> Pool:
        """The pictures whose facts are (among) those given; of them `most`, always the same."""
        allowed = {name: {v} if isinstance(v, str) else set(v) for name, v in facts.items()}
        kept = [
            picture
            for picture in self.pictures
            if all(picture.facts.get(name) in values for name, values in allowed.items())
        ]
        return replace(self, pictures=tuple(_chosen(kept, most, seed="pool")))

    def told(self, fact: str, read: Callable[[Picture], str | None]) -> Pool:
        """With one more fact, read off each picture; None: nothing to be said of it."""
        return self._each(lambda picture: _with_fact(picture, fact, read(picture)))

    def extremes(self, fact: str, measure: Callable[[bytes], float], low: str, high: str) -> Pool:
        """With one more fact: `low` for the third that measures least, `high` for the top third."""
        order = sorted(self.pictures, key=lambda picture: (measure(picture.data), picture.key))
        third = len(order) // 3
        names = dict.fromkeys((p.key for p in order[:third]), low)
        names |= dict.fromkeys((p.key for p in order[-third:]), high)
        return self.told(fact, lambda picture: names.get(picture.key))

    def varied(self, fact: str, changes: Mapping[str, Callable[[bytes], bytes]]) -> Pool:
        """Each picture changed in one of these ways, which becomes a fact of it."""

        def change(picture: Picture) -> Picture:
            name = list(changes)[_hash(fact, picture.key) % len(changes)]
            changed = replace(picture, data=changes[name](picture.data))
            return _with_fact(changed, fact, name)

        return self._each(change)

    def mosaics(self, fact: str, count: int, tile: int) -> Pool:
        """Two by two tiles, one to four of them filled; the `fact` of each shown, joined by `|`."""
        known = [picture for picture in self.pictures if fact in picture.facts]

        def mosaic(number: int) -> Picture:
            canvas = Image.new("RGB", (2 * tile, 2 * tile), "white")
            drawn = _hash(fact, f"count {number}") % 4 + 1
            corners = sorted(range(4), key=lambda corner: _hash(fact, f"{number} at {corner}"))
            shown = [known[_hash(fact, f"{number} {i}") % len(known)] for i in range(drawn)]
            for corner, picture in zip(corners, shown, strict=False):
                image = pictures.on_white(pictures.opened(picture.data)).resize((tile, tile))
                canvas.paste(image, (corner % 2 * tile, corner // 2 * tile))
            names = "|".join(sorted({picture.facts[fact] for picture in shown}))
            return Picture(f"mosaic {number}", pictures.to_png(canvas), {fact: names})

        return replace(self, pictures=tuple(mosaic(number) for number in range(count)))

    def ask(
        self,
        name: str,
        fact: str,
        *,
        question: str,
        per_class: int = 30,
        label_kind: LabelKind = "single_label",
    ) -> LabelledSet:
        """The set whose labels are the pictures' `fact`, at most `per_class` images of each.

        Labels with fewer than `LEAST_PER_LABEL` images are left out, and so is a picture that
        another one repeats byte by byte.
        """
        once = {picture.data: picture for picture in reversed(self.pictures)}
        labelled = [(picture, picture.facts.get(fact, "").split("|")) for picture in once.values()]
        counts = Counter(label for _, labels in labelled for label in labels)
        classes: dict[str, list[Picture]] = defaultdict(list)
        for picture, labels in labelled:
            known = [label for label in labels if label and counts[label] >= LEAST_PER_LABEL]
            if known:
                classes["|".join(known)].append(picture)
        return LabelledSet(
            name=name,
            tags=(*self.tags, question),
            source=self.source,
            licence=self.licence,
            label_kind=label_kind,
            images=tuple(
                (label, picture.data)
                for label in sorted(classes)
                for picture in _chosen(classes[label], per_class, seed=fact)
            ),
        )

    def _each(self, change: Callable[[Picture], Picture]) -> Pool:
        return replace(self, pictures=tuple(change(picture) for picture in self.pictures))


def union(pools: Iterable[Pool], tags: tuple[str, ...]) -> Pool:
    """One pool of several that share their origin or name it together."""
    pools = tuple(pools)
    return Pool(
        source="; ".join(dict.fromkeys(pool.source for pool in pools)),
        licence="; ".join(dict.fromkeys(pool.licence for pool in pools)),
        tags=tags,
        pictures=tuple(picture for pool in pools for picture in pool.pictures),
    )


def _with_fact(picture: Picture, fact: str, value: str | None) -> Picture:
    facts = {**picture.facts, fact: value} if value else picture.facts
    return replace(picture, facts=facts)


def _chosen(items: list[Picture], most: int | None, seed: str) -> list[Picture]:
    """Those whose keys hash lowest: the same for ever, whatever a library's random numbers do."""
    return sorted(items, key=lambda picture: _hash(seed, picture.key))[:most]


def _hash(seed: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\n{key}".encode()).digest()[:8])
