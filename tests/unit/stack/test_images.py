"""`make stack` builds the images, and pulls those that .env names; building would write over an image of a registry."""

import os
import subprocess

import pytest

from stack.compose import ROOT

DOCKER = """#!/bin/sh
echo "$*" >>"$SAID"
case "$*" in "compose config --services") printf '%s\\n' $SERVICES ;; esac
"""
NAMED = "NIGHTSCORE_IMAGE=registry.example.com/nightscore:7\n"
CLOUD, LOCAL = "init worker", "init worker bigquery storage"


@pytest.mark.parametrize(
    ("env", "services", "more", "done"),
    [
        ("", CLOUD, {}, ["build init"]),
        ("NIGHTSCORE_IMAGE=\n#NIGHTSCORE_IMAGE=x:1\n", CLOUD, {}, ["build init"]),
        ("", LOCAL, {}, ["build init", "build bigquery"]),
        ('NIGHTSCORE_IMAGE=""\n', CLOUD, {}, ["build init"]),
        ('NIGHTSCORE_IMAGE="x:1"\n', CLOUD, {}, ["pull worker"]),
        (NAMED, CLOUD, {}, ["pull worker"]),
        (NAMED, LOCAL, {}, ["pull worker", "build bigquery"]),
        ("NIGHTSCORE_LOCAL_IMAGE=x:1\n", LOCAL, {}, ["build init", "pull storage"]),
        ("", CLOUD, {"NIGHTSCORE_IMAGE": "x:1"}, ["pull worker"]),
    ],
)
def test_what_is_named_is_pulled_and_the_rest_is_built(tmp_path, env, services, more, done):
    (tmp_path / ".env").write_text(env)
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    said = tmp_path / "said"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(said), "SERVICES": services, **more}
    subprocess.run([ROOT / "deploy/stack/images.sh", tmp_path / ".env"], env=environment, check=True)
    asked = [line.removeprefix("compose ") for line in said.read_text().splitlines()]
    assert [line for line in asked if not line.startswith("config")] == done
