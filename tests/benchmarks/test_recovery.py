"""The short form of the campaign of faults, and that its judge and its troubles do what they say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from benchmarks import recovery
from benchmarks.faults import blows, proxy
from benchmarks.faults.clients import Account, Client
from benchmarks.faults.house import house
from benchmarks.faults.judge import judge, settle
from benchmarks.faults.proxy import Proxy, Trouble
from benchmarks.recovery import Campaign, Round
from tests.engines import EMBEDDED, SERVERS

SHORT = (
    Campaign("embedded", EMBEDDED, (blows.kill_worker, blows.kill_service), 1, 2, 1.0),
    Campaign(
        "servers",
        SERVERS,
        (blows.kill_api, blows.kill_worker, blows.cut_connection, blows.kill_backend),
        1,
        4,
        1.0,
    ),
)


@pytest.mark.parametrize(
    "campaign",
    [SHORT[0], pytest.param(SHORT[1], marks=pytest.mark.slow)],  # which starts seven processes
    ids=lambda campaign: campaign.name,
)
def test_killed_at_random_moments_nothing_is_lost_doubled_or_changed(
    campaign: Campaign, tmp_path: Path
) -> None:
    played = recovery.play(campaign, tmp_path, seed=7, strikes=campaign.blows_a_round, clients=2)
    assert played.findings == []
    assert sum(played.struck.values()) == campaign.blows_a_round
    assert played.tasks >= 2


def test_the_judge_finds_what_is_not_as_it_was_told(tmp_path: Path) -> None:
    account, stopping = Account(), threading.Event()
    with house(EMBEDDED, tmp_path) as here:
        client = Client(here.urls, account, 3, stopping)
        for number in (1, 2):  # neither is deleted nor refused
            told = client._send(number)
            assert told is not None
        client._call.close()
        assert list(settle(here, account)) == []
        first, second = account.tasks
        assert list(judge(here, account, poisoned=False)) == []
        first.vector = "another"
        first.neighbours = [(second.id, -1.0)]
        second.vector = "another"
        second.jobs[second.job_id] = "refused"
        (blob, *_) = (path for path in (tmp_path / "data/blobs").glob("*/*") if path.is_file())
        blob.unlink()
        account.tasks.pop()
        found = "\n".join(judge(here, account, poisoned=False))
        account.tasks.append(second)
        found += "\n".join(judge(here, account, poisoned=False))
    for sentence in (
        f"task {first.id} has another vector",
        f"task {first.id}: {second.id} was -1.0 away",
        f"task {second.id} is there that nobody sent",
        f"job {second.job_id} was told refused and is succeeded",
        f"blob {blob.name} is missing",
        f"Archive {blob.name} is not there",
    ):
        assert sentence in found


@pytest.fixture
def store() -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(bytes(1000))

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("trouble", "met"),
    [
        ("none", {"200"}),
        ("slow", {"ReadTimeout"}),
        ("errors", {"503"}),
        ("torn", {"RemoteProtocolError"}),
        # By whether the request has come in before the connection ends.
        ("gone", {"RemoteProtocolError", "ReadError", "WriteError"}),
    ],
)
def test_a_trouble_of_the_proxy_is_what_a_client_meets(
    store: str, trouble: Trouble, met: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "SLOW_SECONDS", 1.0)
    with Proxy(store) as between:
        between.trouble = trouble
        try:
            answer = httpx.get(between.url, timeout=0.5 if trouble == "slow" else 10)
        except httpx.HTTPError as error:
            assert type(error).__name__ in met
        else:
            assert str(answer.status_code) in met
        between.trouble = "none"
        assert httpx.get(between.url).status_code == 200


def test_a_round_that_is_over_is_not_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[int] = []

    def play(_: Campaign, __: Path, seed: int, *, strikes: int) -> Round:
        played.append(seed)
        return Round({"kill_api": strikes}, 1, 0, 0, {}, 1, 1.0, [])

    monkeypatch.setattr(recovery, "play", play)
    arguments = ["--only", "kills, servers", "--directory", str(tmp_path)]
    for _ in range(2):
        assert recovery.main(arguments) == 0
    rounds, strikes = recovery.CAMPAIGNS[0].rounds, recovery.CAMPAIGNS[0].blows_a_round
    assert played == list(range(1, rounds + 1))
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["kills"], told["findings"]) == (rounds * strikes, 0)


def test_a_campaign_has_at_least_two_hundred_kills() -> None:
    kills = [each for each in recovery.CAMPAIGNS if each.name.startswith("kills")]
    assert sum(each.rounds * each.blows_a_round for each in kills) >= 200
