from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from app.jobs import supervisor
from app.jobs.supervisor import WorkerSupervisor, child_environment, pause_after
from app.settings import Settings


def wait_until(true: Callable[[], object], seconds: float = 15) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(script))


def test_crashed_worker_is_started_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.01)
    births = tmp_path / "births"
    births.touch()
    command = python(f"open({str(births)!r}, 'a').write('x'); import os; os.abort()")
    keeper = WorkerSupervisor(settings, command=command)
    keeper.start()
    wait_until(lambda: len(births.read_text()) >= 3)
    keeper.stop()
    after = births.read_text()
    time.sleep(0.2)
    assert births.read_text() == after


def test_worker_whose_data_directory_is_taken_is_not_started_again(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.01)
    births = tmp_path / "births"
    command = python(
        f"""
        open({str(births)!r}, "a").write("x")
        from app.jobs import lock, worker
        lock.PATIENCE_SECONDS = 0.1
        worker.main()
        """
    )
    settings.data_dir.mkdir()
    with FileLock(settings.data_dir / "worker.lock"):
        keeper = WorkerSupervisor(settings, command=command)
        keeper.start()
        wait_until(lambda: "worker.given_up" in caplog.messages)
        time.sleep(0.2)
        keeper.stop()
    assert births.read_text() == "x"
    assert caplog.messages == ["worker.given_up"]


def test_stop_ends_the_worker_with_sigterm(settings: Settings, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    command = python(
        f"""
        import pathlib, signal, sys, time
        def leave(*_):
            pathlib.Path({str(sign)!r}).write_text("left in order")
            sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        pathlib.Path({str(sign)!r}).write_text("up")
        time.sleep(60)
        """
    )
    keeper = WorkerSupervisor(settings, command=command)
    keeper.start()
    wait_until(sign.exists)
    wait_until(lambda: sign.read_text() == "up")
    keeper.stop()
    assert sign.read_text() == "left in order"


def test_stop_kills_a_worker_that_does_not_leave(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_MARGIN_SECONDS", 0.3)
    sign = tmp_path / "sign"
    command = python(
        f"""
        import pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path({str(sign)!r}).touch()
        time.sleep(60)
        """
    )
    settings = settings.model_copy(update={"shutdown_grace_seconds": 0})
    keeper = WorkerSupervisor(settings, command=command)
    keeper.start()
    wait_until(sign.exists)
    pid = keeper.pid
    keeper.stop()
    assert pid is not None
    assert not is_alive(pid)


def test_worker_leaves_when_its_parent_is_killed(settings: Settings, tmp_path: Path) -> None:
    sign = tmp_path / "pid"
    child = f"""
import os, pathlib, time
from app.jobs.worker import _leave_with_parent
pathlib.Path({str(sign)!r}).write_text(str(os.getpid()))
_leave_with_parent()
"""
    parent = python(
        f"""
        import sys, time
        from app.jobs.supervisor import WorkerSupervisor
        from app.settings import Settings
        WorkerSupervisor(Settings(), command=(sys.executable, "-c", {child!r})).start()
        time.sleep(60)
        """
    )
    process = subprocess.Popen(parent, env=child_environment(settings, os.environ))
    wait_until(lambda: sign.exists() and sign.read_text())
    worker_pid = int(sign.read_text())
    assert is_alive(worker_pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not is_alive(worker_pid))


def test_worker_reads_the_very_settings_of_its_parent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(
        update={
            "source_prefixes": ("file:///a b/", "https://host/x/"),
            "port": 81,
            "tolerance": None,
        }
    )
    for name, value in child_environment(settings, {}).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_pause_doubles_with_each_crash_up_to_half_a_minute() -> None:
    assert [pause_after(crashes) for crashes in (0, 1, 2, 3, 20)] == [0.5, 0.5, 1.0, 2.0, 30.0]


def test_supervising_needs_no_torch() -> None:
    script = "import sys, app.jobs.supervisor; assert not {'torch', 'dbos'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
