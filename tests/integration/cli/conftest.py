"""The command line as people run it, pointed at the local servers."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nightscore import cli
from nightscore import settings as settings_module
from nightscore.settings import Settings

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """What a shell says that is pointed at the local servers."""
    found = {
        "NIGHTSCORE_PROJECT": settings.project,
        "NIGHTSCORE_BUCKET": settings.bucket,
        "BIGQUERY_EMULATOR_HOST": settings.bigquery_host,
        "BIGQUERY_STORAGE_EMULATOR_HOST": settings.bigquery_storage_host,
        "STORAGE_EMULATOR_HOST": settings.storage_host,
    }
    return {name: value for name, value in found.items() if value}


@pytest.fixture
def nightscore(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run the command in the folder: the same entry point in this process, which has imported everything before."""
    monkeypatch.chdir(tmp_path)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    def forget() -> None:
        settings_module.settings.cache_clear()
        sys.modules["nightscore.cli.app"].services.cache_clear()

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        for variable, value in changes.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setattr(sys, "argv", ["nightscore", *arguments])
        forget()
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        text = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, text.out, text.err)

    yield run
    forget()
