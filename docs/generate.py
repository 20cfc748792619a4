"""Writes cli.md and http.md: what the command line's help and the OpenAPI document say, as pages.

python docs/generate.py
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from app.api.main import create_app
from app.cli import app
from app.settings import Settings

HERE = Path(__file__).resolve().parent
MADE = "Made from the program itself by `python docs/generate.py`; [the reference](reference.md)"
METHODS = ("get", "post", "put", "patch", "delete")

Json = dict[str, Any]


def main() -> None:
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    document = create_app(Settings(data_dir=Path("no-data"))).openapi()
    return {"cli.md": cli(), "http.md": "\n".join(http(document)) + "\n"}


def cli() -> str:
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="task2vec")
    told = html.unescape(get_docs_for_click(obj=command, ctx=context, name="task2vec"))
    told = re.sub(r"```console\n\$ (.*)\n```", r"`\1`", told)
    _, _, rest = told.partition("\n")
    head = f"# Every command and option\n\n{MADE} says more of each, and of exit codes."
    return f"{head}\n{rest.rstrip()}\n"


def http(document: Json) -> Iterator[str]:
    yield f"# Every endpoint and field\n\n{MADE} says more of each, and of what all have in common."
    yield "`/docs` of a running service has the same, to be tried.\n"
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                yield from endpoint(f"{method.upper()} {path}", operations[method])
    yield "## Bodies and answers\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"### {name}\n"
        if schema.get("description"):
            yield f"{flowing(schema['description'])}\n"
        yield from (
            table("field", fields(schema)) if "properties" in schema else [kind(schema) + "\n"]
        )


def endpoint(called: str, operation: Json) -> Iterator[str]:
    yield f"## `{called}`\n"
    if operation.get("description"):
        yield f"{flowing(operation['description'])}\n"
    asked = [each for each in operation.get("parameters", []) if each["in"] != "path"]
    yield from table(
        "parameter",
        [
            (each["name"], kind(each["schema"]), default(each["schema"]), each.get("description"))
            for each in asked
        ],
    )
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        yield f"Body: {'; or '.join(content(body))}.\n"
    for status, answer in operation["responses"].items():
        if status < "400":
            told = "; or ".join(content(answer.get("content", {}))) or "nothing"
            yield f"Answer {status}: {told}.\n"
    refused = ", ".join(status for status in sorted(operation["responses"]) if status >= "400")
    if refused:
        yield f"Refusals, [problems](#problem): {refused}.\n"


def content(kinds: Json) -> list[str]:
    told = []
    for media, one in kinds.items():
        schema = one.get("schema", {})
        inside = kind(schema) if schema else ""
        if "properties" in schema:
            inside = "parts " + ", ".join(f"`{name}`" for name in schema["properties"])
        told.append(f"`{media}`" + (f", {inside}" if inside else ""))
    return told


def fields(schema: Json) -> list[tuple[str, str, str, str | None]]:
    required = schema.get("required", [])
    return [
        (name, kind(one), "required" if name in required else default(one), one.get("description"))
        for name, one in schema["properties"].items()
    ]


def table(head: str, rows: list[tuple[str, str, str, str | None]]) -> Iterator[str]:
    if rows:
        yield f"| {head} | type | default | |\n|---|---|---|---|"
        for name, of, by_default, says in rows:
            told = flowing(says or "").replace("|", "\\|")
            yield f"| `{name}` | {of.replace('|', chr(92) + '|')} | {by_default} | {told} |"
        yield ""


def kind(schema: Json) -> str:
    """In words; another schema as a link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(kind(each) for each in schema[several]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"{kind(schema['additionalProperties'])} by name"
    return str(schema.get("type", "anything")) + bounds(schema)


def bounds(schema: Json) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum", schema.get("gt")))
    high = schema.get("maximum", schema.get("exclusiveMaximum", schema.get("le")))
    told = [f"from {low:g}" if low is not None else "", f"to {high:g}" if high is not None else ""]
    return " " + " ".join(filter(None, told)) if any(told) else ""


def default(schema: Json) -> str:
    found = schema.get("default")
    return "" if found is None or found == [] else f"`{json.dumps(found)}`"


def flowing(text: str) -> str:
    """Lines that were broken for a screen."""
    return re.sub(r"\s*\n\s*", " ", text.strip())


if __name__ == "__main__":
    main()
