"""`make env`: secrets that nobody chose, in a file that only its owner reads and nothing overwrites."""

import base64
import os
import stat
import subprocess
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet

from stack.compose import ENV_SCRIPT, ROOT, make_env

SECRETS = {"FERNET_KEY": 32, "JWT_SECRET": 64, "API_SECRET_KEY": 64, "POSTGRES_PASSWORD": 24, "REDIS_PASSWORD": 24}


def read(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def cloud(path, **variables):
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run([ENV_SCRIPT, path], env=environment, capture_output=True, text=True, check=False)


def test_every_secret_is_long_enough_and_another_one_each_time(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for file in (first, second):
        make_env(file)
    one, two = read(first), read(second)
    for name, length in SECRETS.items():
        assert len(base64.urlsafe_b64decode(one[name])) == length
        assert one[name] != two[name]
        assert urlsplit(f"redis://:{one[name]}@redis:6379/0").password == one[name]
    Fernet(one["FERNET_KEY"])
    assert len(one["JWT_SECRET"]) >= 64  # what HS512 asks for


def test_only_its_owner_reads_it_and_git_ignores_it(tmp_path):
    file = tmp_path / ".env"
    file.touch(mode=0o644)
    make_env(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_is_there_is_never_changed_and_what_is_missing_is_added(tmp_path):
    file = tmp_path / ".env"
    file.write_text("JWT_SECRET=mine\n#REDIS_PASSWORD=kept out on purpose\nWORKERS=8")
    make_env(file)
    after = file.read_text()
    assert after.startswith("JWT_SECRET=mine\n#REDIS_PASSWORD=kept out on purpose\nWORKERS=8\n")
    assert "\nREDIS_PASSWORD=" not in after
    assert read(file)["FERNET_KEY"]
    assert "nothing was changed" in make_env(file)
    assert file.read_text() == after


def test_for_google_cloud_it_says_what_to_fill_in(tmp_path):
    said = cloud(tmp_path / "empty").stdout
    assert "Fill in NIGHTSCORE_PROJECT" in said
    assert "Fill in NIGHTSCORE_BUCKET" in said
    full = tmp_path / "full"
    assert "Fill in" not in cloud(full, NIGHTSCORE_PROJECT="p-1", NIGHTSCORE_BUCKET="b-1").stdout
    assert (read(full)["NIGHTSCORE_PROJECT"], read(full)["NIGHTSCORE_LOCATION"]) == ("p-1", "US")
    assert "COMPOSE_PROFILES" not in read(full)


def test_a_file_for_google_cloud_is_not_turned_into_one_for_local_servers(tmp_path):
    file = tmp_path / ".env"
    cloud(file, NIGHTSCORE_PROJECT="p-1", NIGHTSCORE_BUCKET="b-1")
    before = file.read_text()
    refused = cloud(file, LOCAL="1")
    assert refused.returncode == 1
    assert "is for a project on Google Cloud" in refused.stderr
    assert file.read_text() == before


@pytest.mark.parametrize("name", ["NIGHTSCORE_PROJECT", "BIGQUERY_EMULATOR_HOST", "COMPOSE_PROFILES"])
def test_for_local_servers_it_is_complete(tmp_path, name):
    make_env(tmp_path / ".env")
    assert read(tmp_path / ".env")[name]
