"""Labels files that say too much, too little, or nothing that can be read."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from benchmarks.hostile.plain import picture, tarred, zipped
from benchmarks.hostile.zips import MIB

_CSV: dict[str, bytes] = {
    "empty": b"",
    "header-only": b"file,label\n",
    "no-header": b"a.png,cat\nb.png,dog\n",
    "one-column": b"file\na.png\n",
    "column-twice": b"file,label,file\na.png,cat,b.png\n",
    "short-row": b"file,label\na.png\nb.png,dog\n",
    "long-row": b"file,label\na.png,cat,dog\n",
    "quote-open": b'file,label\n"a.png,cat\nb.png,dog\n',
    "quote-inside": b'file,label\na.p"ng,cat\n',
    "zero-byte": b"file,label\na.png,c\0at\n",
    "latin": "file,label\na.png,k\u00e4tzchen\n".encode("latin-1"),
    "utf-16": "file,label\na.png,cat\n".encode("utf-16"),
    "surrogate": b"file,label\na.png,\xed\xa0\x80\n",
    "control": b"file,label\na.png,\x1b[2J\n",
    "row-twice": b"file,label\na.png,cat\na.png,dog\n",
    "not-there": b"file,label\nz.png,cat\n",
    "path-out": b"file,label\n../a.png,cat\n/etc/passwd,dog\n",
    "label-long": b"file,label\na.png," + b"x" * 201 + b"\n",
    "label-huge": b"file,label\na.png," + b"x" * (8 * MIB) + b"\n",
    "many-labels": b"file,label\na.png," + b"|".join(b"%d" % i for i in range(6_000)) + b"\n",
    "only-bars": b"file,label\na.png,||||||\nb.png,|\n",
    "many-columns": b"file,label" + b",x" * 90_000 + b"\n",
    "many-rows": b"file,label\n" + b"".join(b"%d,a\n" % i for i in range(210_000)),
    "no-line-ends": b"file,label " * 200_000,
    "carriage-returns": b"file,label\ra.png,cat\rb.png,dog\r",
    "formula": b"file,label\na.png,=1+1\nb.png,@x\n",
    "binary": bytes(range(256)) * 40,
    "marks": b"\xef\xbb\xbf\xef\xbb\xbffile,label\na.png,cat\n",
}
_JSONL: dict[str, bytes] = {
    "empty": b"",
    "list": b"[]\n",
    "number": b"1\n",
    "null": b"null\n",
    "no-label": b'{"file": "a.png"}\n',
    "label-number": b'{"file": "a.png", "label": 1}\n',
    "label-list": b'{"file": "a.png", "label": ["cat"]}\n',
    "file-null": b'{"file": null, "label": "cat"}\n',
    "key-twice": b'{"file": "a.png", "file": "b.png", "label": "cat"}\n',
    "cut": b'{"file": "a.png", "label": "ca',
    "deep": b"[" * 100_000,
    "deep-object": b'{"a":' * 50_000,
    "nan": b'{"file": "a.png", "label": "cat", "x": NaN}\n',
    "huge-number": b'{"file": "a.png", "label": "cat", "x": ' + b"9" * 100_000 + b"}\n",
    "exponent": b'{"file": "a.png", "label": "cat", "x": 1e999999}\n',
    "escape": b'{"file": "a.png", "label": "\\ud800"}\n',
    "zero": b'{"file": "a.png", "label": "\\u0000"}\n',
    "one-line": b'{"file": "a.png", "label": "cat"}' * 9,
    "line-separators": '{"file": "a.png", "label": "cat"}\u2028{}'.encode(),
    "utf-16": '{"file": "a.png", "label": "cat"}'.encode("utf-16"),
}


def cases(random: Random) -> Iterator[tuple[str, bytes]]:
    images = {f"{name}.png": picture(random) for name in "abcd"}
    for ending, files in (("csv", _CSV), ("jsonl", _JSONL)):
        for name, data in files.items():
            content = {f"labels.{ending}": data, **images}
            yield f"{ending}-{name}", zipped(content)
            yield f"{ending}-{name}-tar", tarred(content)
    both = {"labels.csv": _CSV["header-only"], "labels.jsonl": b"", **images}
    yield "both", zipped(both)
    yield "large", zipped({"labels.csv": b"file,label\n" + b"a" * (70 * MIB), **images})
    yield "within-a-folder", zipped({f"set/{name}": data for name, data in both.items()})
