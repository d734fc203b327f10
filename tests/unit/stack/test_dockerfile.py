"""The Dockerfile and the shell scripts, against the policies and their linters; each finds what breaks it."""

import subprocess
import sys
from pathlib import Path

import pytest

from stack.compose import DOCKERFILE, ENV_SCRIPT, ROOT, read_dockerfile
from stack.policies import DOCKERFILE_POLICIES, ignores_by_default

BIN = Path(sys.prefix) / "bin"
SCRIPTS = [*sorted(ROOT.glob("deploy/**/*.sh")), ROOT / ".ci/run"]


@pytest.mark.parametrize("policy", DOCKERFILE_POLICIES, ids=lambda policy: policy.__name__)
def test_the_file_keeps_every_policy(policy):
    assert list(policy(read_dockerfile())) == []


BROKEN = [
    ("bases_are_pinned", "slim-bookworm@sha256:a36c", "slim-bookworm # a36c", "is not pinned"),
    ("images_run_as_a_user", "USER 50000:0\nEXPOSE 8080", "USER root\nEXPOSE 8080", "airflow: the user is root"),
    ("images_run_as_a_user", "USER 50000:0\nEXPOSE 9050", "EXPOSE 9050", "local-servers: the user is root"),
    ("images_report_health", 'CMD ["airflow", "api-server"]', "CMD airflow api-server", "its command is a shell's"),
    ("images_report_health", "\nHEALTHCHECK --interval=15s", "\nLABEL x=", "airflow: has no health check"),
    ("layers_hold_no_secrets", "WORKDIR /opt/airflow\n", "ARG PYPI_TOKEN\n", "PYPI_TOKEN stays"),
    ("layers_hold_no_secrets", "ENV AIRFLOW_HOME", "ENV DB_PASSWORD=x AIRFLOW_HOME", "DB_PASSWORD stays"),
    ("layers_hold_no_secrets", "COPY dags /opt", "COPY .env /opt", "copies secrets"),
    (
        "no_tools_are_left",
        " /usr/local/bin/pip* \\\n    && useradd --uid 50000 --gid 0 --home-dir /opt/airflow",
        " \\\n    && useradd --home-dir /opt/airflow",
        "airflow: pip is left",
    ),
    (
        "no_tools_are_left",
        "--no-install-recommends libgomp1",
        "--no-install-recommends libgomp1 gcc",
        "gcc is used or left",
    ),
    ("copies_exist", "COPY dags /opt", "COPY dagz /opt", "dagz does not exist"),
    ("copies_exist", "COPY dags /opt", "COPY tests /opt", ".dockerignore keeps tests out"),
    ("copies_exist", "COPY --from=build /opt", "COPY --from=builder /opt", "no stage builder"),
    ("extras_exist", "--extra stack ", "--extra stak ", "no extra stak"),
    ("packages_come_before_the_code", "--no-deps dist", "dist", "build: installs packages after the code"),
]


@pytest.mark.parametrize(("policy", "old", "new", "fault"), BROKEN, ids=[f"{b[0]}-{n}" for n, b in enumerate(BROKEN)])
def test_a_policy_finds_what_breaks_it(tmp_path, policy, old, new, fault):
    [rule] = [rule for rule in DOCKERFILE_POLICIES if rule.__name__ == policy]
    text = DOCKERFILE.read_text()
    assert old in text
    (tmp_path / "Dockerfile").write_text(text.replace(old, new, 1))
    assert fault in "\n".join(rule(read_dockerfile(tmp_path / "Dockerfile")))


def test_every_policy_is_shown_to_find_something():
    assert {broken[0] for broken in BROKEN} == {policy.__name__ for policy in DOCKERFILE_POLICIES}


def test_the_build_sees_only_what_it_copies(tmp_path):
    assert ignores_by_default(ROOT / ".dockerignore")
    (tmp_path / ".dockerignore").write_text(".git\n.env\n")
    assert not ignores_by_default(tmp_path / ".dockerignore")


def test_hadolint_has_nothing_to_say_and_says_something_about_a_broken_one(tmp_path):
    hadolint = BIN / "hadolint"
    assert subprocess.run([hadolint, DOCKERFILE], capture_output=True, check=False).stdout == b""
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp && sudo apt-get install gcc\n")
    assert b"DL3007" in subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, check=False).stdout


def test_shellcheck_has_nothing_to_say_and_says_something_about_a_broken_one(tmp_path):
    shellcheck = BIN / "shellcheck"
    assert ENV_SCRIPT in SCRIPTS
    assert subprocess.run([shellcheck, *SCRIPTS], capture_output=True, check=False).stdout == b""
    (tmp_path / "broken.sh").write_text("#!/bin/sh\nrm -rf $1/*\n")
    assert b"SC2086" in subprocess.run([shellcheck, tmp_path / "broken.sh"], capture_output=True, check=False).stdout
