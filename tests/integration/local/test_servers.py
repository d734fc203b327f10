"""`up`, `down`, `status` and `reset` with real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from nightscore import clients
from nightscore.errors import ConfigurationError, TransientError
from nightscore.local import bigquery_environment, processes, servers
from nightscore.local.ports import free_ports
from nightscore.local.processes import ProcessId
from nightscore.local.servers import LocalServers, Ports
from nightscore.settings import read_settings

Up = Callable[..., LocalServers]


@pytest.fixture
def up(bigquery_environment_path: Path) -> Iterator[Up]:
    """`servers.up` in the shared environment; whatever it started is stopped at the end."""
    roots: set[Path] = set()

    def start(root: Path, **options: object) -> LocalServers:
        roots.add(root)
        return servers.up(root, environment=bigquery_environment_path, **options)

    yield start
    for root in roots:
        servers.down(root)


def pids(root: Path) -> dict[str, int | None]:
    return {server.name: server.pid for server in servers.status(root)}


def put(local: LocalServers, name: str) -> None:
    url = f"{local.storage_url}/upload/storage/v1/b/{servers.BUCKET}/o?uploadType=media&name={name}"
    urlopen(Request(url, data=b"kept", method="POST")).close()


def objects(root: Path) -> list[str]:
    settings = read_settings({}, root)
    return [blob.name for blob in clients.build_storage(settings).list_blobs(settings.bucket)]


def query(root: Path, sql: str) -> list[tuple[object, ...]]:
    client = clients.build_bigquery(read_settings({}, root))
    return [tuple(row.values()) for row in client.query(sql).result()]


def test_a_life(up: Up, tmp_path: Path) -> None:
    assert servers.status(tmp_path) == ()
    told: list[str] = []
    local = up(tmp_path, progress=told.append)
    assert told[:2] == ["Starting the storage server …", "Starting the bigquery server …"]
    assert local.bigquery_url in told[-1]

    by_name = {server.name: server for server in servers.status(tmp_path)}
    assert by_name["bigquery"].urls == (local.bigquery_url, local.bigquery_storage_address)
    assert by_name["storage"].urls == (local.storage_url,)
    assert all(server.running and server.answering and server.data_bytes > 0 for server in by_name.values())
    for server in by_name.values():
        assert os.getsid(server.pid) == server.pid, "Ctrl-C in this terminal would end it"

    put(local, "a")
    query(tmp_path, "CREATE TABLE local.t AS SELECT 7 AS id")

    before, started, told = pids(tmp_path), time.monotonic(), []
    assert up(tmp_path, progress=told.append) == local
    assert time.monotonic() - started < 1
    assert (pids(tmp_path), told) == (before, [])

    servers.down(tmp_path)
    assert [(server.pid, server.running, server.answering) for server in servers.status(tmp_path)] == [
        (None, False, False),
        (None, False, False),
    ]
    assert not (tmp_path / ".nightscore" / "env").exists()

    assert up(tmp_path) == local, "the ports are kept"
    assert objects(tmp_path) == ["a"]
    assert query(tmp_path, "SELECT id FROM local.t") == [(7,)]

    servers.reset(tmp_path)
    assert [(server.running, server.data_bytes) for server in servers.status(tmp_path)] == [(False, 0), (False, 0)]


def test_only_the_server_that_died_is_restarted(up: Up, tmp_path: Path) -> None:
    local = up(tmp_path)
    query(tmp_path, "CREATE TABLE local.t AS SELECT 7 AS id")
    put(local, "a")
    for victim, survivor in (("bigquery", "storage"), ("storage", "bigquery")):
        before = pids(tmp_path)
        os.kill(before[victim], signal.SIGKILL)
        dead = next(server for server in wait_for_death(tmp_path, victim) if server.name == victim)
        assert (dead.pid, dead.answering) == (None, False)
        assert up(tmp_path) == local
        after = pids(tmp_path)
        assert after[survivor] == before[survivor]
        assert after[victim] not in (None, before[victim])
    assert objects(tmp_path) == ["a"]
    assert query(tmp_path, "SELECT id FROM local.t") == [(7,)]


def wait_for_death(root: Path, name: str) -> tuple[servers.ServerStatus, ...]:
    deadline = time.monotonic() + 5
    while pids(root)[name] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return servers.status(root)


def test_two_checkouts_run_side_by_side(up: Up, tmp_path: Path, local_servers: LocalServers) -> None:
    second = up(tmp_path)
    assert not {*vars(second.ports).values()} & {*vars(local_servers.ports).values()}
    put(second, "only-here")
    assert objects(tmp_path) == ["only-here"]
    assert "only-here" not in objects(local_servers.root)
    query(tmp_path, "CREATE TABLE local.only_here AS SELECT 1 AS id")
    exists = "SELECT COUNT(*) FROM local.INFORMATION_SCHEMA.TABLES WHERE table_name = 'only_here'"
    assert (query(tmp_path, exists), query(local_servers.root, exists)) == ([(1,)], [(0,)])


def test_concurrent_ups_start_one_pair(up: Up, tmp_path: Path) -> None:
    found: list[LocalServers] = []
    threads = [threading.Thread(target=lambda: found.append(up(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    log = (tmp_path / ".nightscore" / "logs" / "bigquery.log").read_text()
    assert log.count("Started server process") == 1
    assert all(server.answering for server in servers.status(tmp_path))


def test_given_ports_are_used_and_a_running_server_moves_there(up: Up, tmp_path: Path) -> None:
    first = up(tmp_path)
    before = pids(tmp_path)
    bigquery, grpc = free_ports("elsewhere", 2)
    moved = up(tmp_path, ports=Ports(bigquery, grpc, first.ports.storage))
    assert moved.ports == Ports(bigquery, grpc, first.ports.storage)
    after = pids(tmp_path)
    assert after["storage"] == before["storage"]
    assert after["bigquery"] != before["bigquery"]
    assert read_settings({}, tmp_path).bigquery_host == f"http://127.0.0.1:{bigquery}"


# ------------------------------------------------------------------------------------------- without starting servers


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def remember(root: Path, processes_: dict[str, dict[str, object]], ports: tuple[int, int, int] = (1, 2, 3)) -> None:
    folder = root / ".nightscore"
    folder.mkdir()
    state = {
        "ports": dict(zip(("bigquery", "bigquery_storage", "storage"), ports, strict=True)),
        "processes": processes_,
        "fingerprints": {},
    }
    (folder / "servers.json").write_text(json.dumps(state))


def test_a_recycled_pid_is_neither_ours_nor_killed(bystander: subprocess.Popen[bytes], tmp_path: Path) -> None:
    then = processes._find(bystander.pid).started + "0"
    remember(tmp_path, {"bigquery": {"pid": bystander.pid, "started": then}})
    assert pids(tmp_path) == {"storage": None, "bigquery": None}
    servers.down(tmp_path)
    assert bystander.poll() is None
    same = ProcessId(bystander.pid, processes._find(bystander.pid).started)
    assert processes.is_running(same), "only the starting time told them apart"


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    process = processes.spawn([sys.executable, "-c", deaf], {}, tmp_path / "log")
    while "ready" not in (tmp_path / "log").read_text():
        time.sleep(0.02)
    assert not processes.stop(process, grace_seconds=0.3)
    assert not processes.is_running(process)


def test_ps_identifies_a_process_as_proc_does(bystander: subprocess.Popen[bytes]) -> None:
    if not Path("/bin/ps").exists():
        pytest.skip("no ps here")
    found = processes._find_by_ps(bystander.pid)
    assert found == processes._find_by_ps(bystander.pid)
    assert found is not None
    assert not found.is_zombie
    assert len(found.started) > 10
    bystander.kill()
    bystander.wait()
    assert processes._find_by_ps(bystander.pid) is None


def test_a_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    folder = tmp_path / ".nightscore"
    wanted = free_ports("kept", 3)
    remember(tmp_path, {}, ports=(wanted[0], wanted[1], wanted[2]))
    assert servers._settle_ports(folder, None) == Ports(*wanted)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", wanted[1]))
        taken.listen()
        settled = servers._settle_ports(folder, None)
        assert (settled.bigquery, settled.storage) == (wanted[0], wanted[2])
        assert settled.bigquery_storage not in wanted
        with pytest.raises(ConfigurationError, match=f"Port {wanted[1]} on 127.0.0.1 is used by another program"):
            servers._settle_ports(folder, Ports(*wanted))


def test_a_server_whose_code_changed_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, patterns in servers.SOURCES.items():
        for pattern in patterns:
            assert list(servers.HERE.glob(pattern)), f"{pattern} of {name} matches nothing"
    source = tmp_path / "bigquery_server" / "patches" / "one.py"
    source.parent.mkdir(parents=True)
    source.write_text("first")
    monkeypatch.setattr(servers, "HERE", tmp_path)
    first = [servers._fingerprint(name, (["python"], {})) for name in ("bigquery", "storage")]
    source.write_text("second")
    second = [servers._fingerprint(name, (["python"], {})) for name in ("bigquery", "storage")]
    assert first[0] != second[0]
    assert first[1] == second[1]
    assert servers._fingerprint("bigquery", (["python3"], {})) == second[0], "the same interpreter by another name"
    assert servers._fingerprint("bigquery", (["python", "--port=1"], {})) != second[0]


def test_a_server_that_ends_shows_the_end_of_its_log(up: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = (
        [sys.executable, "-c", "print('x' * 5, *range(100), sep='\\n', flush=True); raise SystemExit('no such flag')"],
        {},
    )
    monkeypatch.setattr(servers, "_commands", lambda *_: {"storage": failing, "bigquery": failing})
    log = tmp_path / ".nightscore" / "logs" / "storage.log"
    log.parent.mkdir(parents=True)
    log.write_text("an earlier start\n")
    with pytest.raises(TransientError, match="The local storage server ended while it was starting") as failed:
        up(tmp_path)
    message = str(failed.value)
    assert str(log) in message
    assert message.endswith("  99\n  no such flag")
    assert "\n  1\n" not in message, "only the last lines"
    assert "an earlier start" not in message


def test_a_server_that_does_not_answer_is_given_up(up: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mute = ([sys.executable, "-c", "import time; time.sleep(30)"], {})
    monkeypatch.setattr(servers, "_commands", lambda *_: {"storage": mute, "bigquery": mute})
    monkeypatch.setattr(servers, "START_SECONDS", 0.2)
    with pytest.raises(TransientError, match=r"did not answer in 0.2 s.*\n  \(it printed nothing\)"):
        up(tmp_path)


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tmp_path / "env"
    made: list[Path] = []

    def create(where: Path, python: Path) -> None:
        made.append(where)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
        (where / bigquery_environment.MARKER).write_text(bigquery_environment._digest())

    monkeypatch.setattr(bigquery_environment, "_create", create)
    told: list[str] = []
    for _ in range(2):
        assert bigquery_environment.ensure(environment, told.append) == environment / "bin" / "python"
    assert (made, len(told)) == ([environment], 1)
    (environment / bigquery_environment.MARKER).write_text("another digest")
    bigquery_environment.ensure(environment, told.append)
    assert made == [environment, environment]


def test_a_missing_uv_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"needs uv\. Install it, for example with `pip install uv`"):
        servers.up(tmp_path)


def test_a_python_of_pyenv_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("3.12.9", "3.13.0t", "3.13.2"):
        python = tmp_path / "versions" / version / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.touch()
    programs = {"uv": "exit 2", "pyenv": f"echo {tmp_path}"}
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = bigquery_environment._find_python([str(tmp_path / "uv")])
    assert found == str(tmp_path / "versions" / "3.13.2" / "bin" / "python")
    (tmp_path / "pyenv").unlink()
    assert bigquery_environment._find_python([str(tmp_path / "uv")]) == "3.13", "uv is to download it"


def test_a_missing_python_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery_environment, "_find_python", lambda _: str(tmp_path / "no-python"))
    with pytest.raises(ConfigurationError, match=r"needs Python 3.13. Install it, .* `pyenv install 3.13`"):
        servers.up(tmp_path)


def test_packages_that_cannot_be_installed_are_worth_a_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("./does-not-exist.whl\n")
    monkeypatch.setattr(bigquery_environment, "REQUIREMENTS", requirements)
    with pytest.raises(TransientError, match="does-not-exist"):
        servers.up(tmp_path)
    assert not (tmp_path / ".nightscore" / "bigquery-env" / bigquery_environment.MARKER).exists()
