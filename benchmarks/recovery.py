"""Breaks the running service at random moments, and looks whether anything was lost.

    python -m benchmarks.recovery                    the campaign: more than an hour on two cores
    python -m benchmarks.recovery --only kills       those campaigns whose name has that in it
    python -m benchmarks.recovery --quick            a few blows of each kind
    python -m benchmarks.recovery --list             what there is

Real processes: embedded, `task2vec serve` with its supervised worker on SQLite, FAISS and the disk;
servers, two APIs and two workers on PostgreSQL, pgvector and S3 (moto), which this starts. Four
clients send small real sets all the time, repeat what is not answered by its Idempotency-Key, and
write down what they were told. Blows are struck at seeded random moments; whatever dies is started
again. After each round all must be quiet and true: every accepted task has ended, once, as it
should; vectors, states and distances are those that were told; keys are answered as before; there
is no task, embedding or archive that nobody has, and none is missing; `task2vec check --deep` finds
nothing; no request was answered by an error other than 503 with Retry-After.

Archives that nobody has are looked for as the housekeeping of a day later would. The probe is
timm's smallest network. A full disk needs root (a disk of its own, in memory), clocks that jump
Debian's libfaketime: without them those campaigns are left out, and said so.

Rounds that are over stay under --directory and are not played again, unless --anew says so: a
campaign that was cut off goes on. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.faults import blows
from benchmarks.faults.blows import Blow
from benchmarks.faults.clients import Account, Client
from benchmarks.faults.house import faketime_library, house
from benchmarks.faults.judge import judge, settle
from tests.engines import EMBEDDED, SERVERS

CLIENTS = 4
DISK_MIB = 96
_LAST_WORDS_SECONDS = 300.0


@dataclass(frozen=True)
class Campaign:
    """`pause_seconds`  between two blows, on average"""

    name: str
    engines: str
    blows: tuple[Blow, ...]
    rounds: int
    blows_a_round: int
    pause_seconds: float
    settings: dict[str, object] = field(default_factory=dict)
    clocks: bool = False
    small_disk: bool = False

    def lacks(self) -> str:
        """What this machine has not."""
        if self.clocks and faketime_library() is None:
            return "libfaketime (Debian's package faketime)"
        if self.small_disk and os.geteuid() != 0:
            return "root, to mount a small disk"
        return ""


_KILLS = (blows.kill_api, blows.kill_worker, blows.cut_connection, blows.kill_backend)
CAMPAIGNS = (
    Campaign("kills, servers", SERVERS, _KILLS, 8, 20, 4.0),
    Campaign("kills, embedded", EMBEDDED, (blows.kill_worker, blows.kill_service), 4, 10, 12.0),
    Campaign(
        "database restarts", SERVERS, (blows.restart_database, blows.crash_database), 1, 12, 6.0
    ),
    Campaign("S3 in trouble", SERVERS, (blows.trouble_s3,), 1, 12, 5.0),
    Campaign("disk full", EMBEDDED, (blows.fill_disk,), 1, 8, 8.0, small_disk=True),
    Campaign("clocks jump, servers", SERVERS, (blows.turn_clock,), 1, 12, 5.0, clocks=True),
    Campaign(
        "clocks jump, embedded",
        EMBEDDED,
        (blows.turn_clock,),
        1,
        12,
        5.0,
        # A machine's own clock is the only one there: a key that it says is a day old is forgotten.
        {"idempotency_retention_hours": 96},
        clocks=True,
    ),
    Campaign("frozen workers", SERVERS, (blows.freeze_worker,), 1, 6, 8.0),
    Campaign("stopped workers", SERVERS, (blows.stop_worker,), 1, 8, 10.0),
    Campaign("two versions", SERVERS, (blows.deploy,), 1, 10, 8.0),
    Campaign("poison", SERVERS, (blows.poison,), 1, 3, 5.0, {"max_job_attempts": 3}),
)


@dataclass
class Round:
    """What was done, what the clients met, and what was found wrong."""

    struck: dict[str, int]
    tasks: int
    deleted: int
    refused: int
    answers: dict[str, int]
    restarts: int
    seconds: float
    findings: list[str]


def play(
    campaign: Campaign, directory: Path, seed: int, *, strikes: int, clients: int = CLIENTS
) -> Round:
    chance, account, stopping = random.Random(seed), Account(), threading.Event()
    struck: Counter[str] = Counter()
    findings: list[str] = []
    began = time.monotonic()
    with (
        _disk(directory / "data") if campaign.small_disk else nullcontext(),
        house(
            campaign.engines, directory, clocks=campaign.clocks, settings=campaign.settings
        ) as here,
    ):
        started = {name: each.started for name, each in here.processes.items()}
        sending = [Client(here.urls, account, 100 * seed + n, stopping) for n in range(clients)]
        for client in sending:
            client.start()
        for number in range(strikes):
            time.sleep(chance.uniform(0, 2 * campaign.pause_seconds))
            blow = campaign.blows[number % len(campaign.blows)]  # as many of each kind
            struck[blow.__name__] += 1
            try:
                blow(here, chance)
            except blows.Unkept as unkept:
                findings.append(str(unkept))
        if campaign.clocks:
            here.clock.write_text("+0\n")
        stopping.set()
        for client in sending:
            client.join(_LAST_WORDS_SECONDS)
        findings += settle(here, account)
        poisoned = blows.poison in campaign.blows
        findings += judge(here, account, poisoned=poisoned)
        restarts = sum(each.started - started[name] for name, each in here.processes.items())
    return Round(
        struck=dict(struck),
        tasks=len(account.tasks),
        deleted=sum(told.deleted for told in account.tasks),
        refused=sum(told.expected == "refused" for told in account.tasks),
        answers=dict(account.answers),
        restarts=restarts,
        seconds=round(time.monotonic() - began, 1),
        findings=findings,
    )


@contextmanager
def _disk(at: Path) -> Iterator[None]:
    """A small one of its own."""
    at.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(at)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parse(arguments)
    if asked.list:
        for campaign in CAMPAIGNS:
            print(campaign.name)
        return 0
    chosen = [campaign for campaign in CAMPAIGNS if asked.only in campaign.name]
    result: dict[str, object] = {}
    kills = failed = 0
    for campaign in chosen:
        if lacks := campaign.lacks():
            print(f"{campaign.name}: left out, as this machine has not {lacks}", flush=True)
            result[campaign.name] = {"left_out": lacks}
            continue
        rounds = []
        for number in range(1 if asked.quick else campaign.rounds):
            strikes = len(campaign.blows) if asked.quick else campaign.blows_a_round
            played = _played(campaign, asked.directory, asked.seed + number, strikes, asked.anew)
            rounds.append(played)
            print(f"{campaign.name}, round {number + 1}: {_sentence(played)}", flush=True)
            for finding in played.findings:
                print(f"    {finding}", flush=True)
        summary = _sum(rounds)
        result[campaign.name] = summary
        failed += sum(len(played.findings) for played in rounds)
        if campaign.name.startswith("kills"):
            kills += sum(sum(played.struck.values()) for played in rounds)
    print(json.dumps({"kills": kills, "findings": failed, "campaigns": result}))
    return 1 if failed else 0


def _played(campaign: Campaign, directory: Path, seed: int, strikes: int, anew: bool) -> Round:
    """As it was played before, or now."""
    name = campaign.name.replace(", ", "-").replace(" ", "-").lower()
    path = directory / f"{name}-{seed}-{strikes}.json"
    if path.exists() and not anew:
        return Round(**json.loads(path.read_text()))
    place = directory / "round"
    shutil.rmtree(place, ignore_errors=True)
    played = play(campaign, place, seed, strikes=strikes)
    path.write_text(json.dumps(asdict(played)))
    if played.findings:  # for whoever wants to know why
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        place.rename(path.with_suffix(""))
    return played


def _sum(rounds: Sequence[Round]) -> dict[str, object]:
    struck: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for played in rounds:
        struck.update(played.struck)
        answers.update(played.answers)
    return {
        "struck": dict(struck),
        "answers": dict(answers),
        "findings": [finding for played in rounds for finding in played.findings],
        **{
            name: round(sum(getattr(played, name) for played in rounds), 1)
            for name in ("tasks", "deleted", "refused", "restarts", "seconds")
        },
    }


def _sentence(played: Round) -> str:
    blows_ = ", ".join(f"{count} x {name}" for name, count in sorted(played.struck.items()))
    return (
        f"{blows_}; {played.tasks} tasks, {played.restarts} restarts, {played.seconds:.0f} s; "
        f"{len(played.findings) or 'no'} findings"
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="PART", help="of a campaign's name")
    parser.add_argument("--quick", action="store_true", help="one blow of each kind")
    parser.add_argument("--list", action="store_true", help="tell the campaigns")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--anew", action="store_true", help="play rounds that are over once more")
    parser.add_argument("--directory", type=Path, default=Path(".cache/recovery"))
    asked = parser.parse_args(arguments)
    asked.directory = asked.directory.absolute()
    asked.directory.mkdir(parents=True, exist_ok=True)
    return asked


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # in order: what was started is stopped
    sys.exit(main())
