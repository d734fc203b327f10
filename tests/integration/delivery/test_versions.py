"""Which version a commit's wheel and its release have, and when a tag may become a release."""

import hashlib
import io
import json
import subprocess
import tarfile

import pytest

from workflows import ROOT


def versions(checkout):
    checkout.output.unlink(missing_ok=True)
    done = checkout.run("deploy", "build", "Versions")
    assert done.returncode == 0, done.stderr
    assert checkout.output.read_text() == done.stdout, "the steps that follow read it"
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_the_wheels_version_moves_with_the_package_and_the_releases_with_every_commit(checkout):
    first = versions(checkout)
    assert first["package"] == "0.1.0.dev20261130225501"
    assert first["release"] == f"20261130225501-{checkout.first[:12]}"
    (checkout.folder / "dags").mkdir()
    (checkout.folder / "dags" / "scoring.py").write_text("# changed\n")
    second_commit = checkout.commit("2026-12-01T01:00:00+0200")
    second = versions(checkout)
    assert second == {"package": first["package"], "release": f"20261130230000-{second_commit[:12]}"}
    (checkout.folder / "include" / "nightscore" / "new.py").write_text("")
    checkout.commit("2026-12-02T00:00:00+0000")
    assert versions(checkout)["package"] == "0.1.0.dev20261202000000"


def stamp(checkout, version):
    command = ["python3", ".github/scripts/stamp.py", version]
    return subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=False)


def test_a_version_is_stamped_into_both_places_or_into_none(checkout):
    assert stamp(checkout, "0.1.0.dev20261130225501").returncode == 0
    for name in ("pyproject.toml", "include/nightscore/__init__.py"):
        text = (checkout.folder / name).read_text()
        assert text.replace("0.1.0.dev20261130225501", "0.1.0") == (ROOT / name).read_text()
    done = stamp(checkout, '0.1.0"; import os')
    assert (done.returncode, "is not a version" in done.stderr) == (1, True)


def release(checkout, tag):
    checkout.git("update-ref", "refs/remotes/origin/main", "refs/heads/main")
    return checkout.run("release", "build", "Tag, package and changelog agree", GITHUB_REF_NAME=tag)


def test_a_tag_is_released_with_its_part_of_the_changelog_alone(checkout):
    (checkout.folder / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\n* Later.\n\n## 0.1.0 - 2026-12-01\n\n### Added\n\n* Everything.\n\n"
        "## 0.0.9\n\n* Earlier.\n"
    )
    checkout.commit()
    done = release(checkout, "v0.1.0")
    assert done.returncode == 0, done.stderr
    assert (checkout.folder / "dist" / "notes.md").read_text() == "### Added\n\n* Everything.\n"


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("v0.1.0", "CHANGELOG.md has nothing under `## 0.1.0`."),
        ("v0.2.0", "pyproject.toml says 0.1.0. include/nightscore/__init__.py says 0.1.0."),
        ("0.1.0", "is not a tag like v1.2.3."),
        ("v0.1.0-rc1", "is not a tag like v1.2.3."),
    ],
)
def test_what_does_not_agree_is_not_released(checkout, tag, said):
    done = release(checkout, tag)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_tag_beside_main_is_not_released(checkout):
    checkout.git("update-ref", "refs/remotes/origin/main", "refs/heads/main")
    checkout.git("checkout", "-b", "aside")
    checkout.commit()
    done = checkout.run("release", "build", "Tag, package and changelog agree", GITHUB_REF_NAME="v0.1.0")
    assert (done.returncode, "it has passed no review" in done.stderr) == (1, True)


@pytest.mark.parametrize(("workflow", "name"), [("deploy", "Digests"), ("release", "Digest of the image")])
def test_the_digests_are_those_of_the_files(checkout, workflow, name):
    dist = checkout.folder / "dist"
    dist.mkdir()
    (dist / "nightscore-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    index = json.dumps({"manifests": [{"digest": "sha256:abc"}]}).encode()
    with tarfile.open(dist / "airflow.oci.tar", "w") as archive:
        member = tarfile.TarInfo("index.json")
        member.size = len(index)
        archive.addfile(member, io.BytesIO(index))
    done = checkout.run(workflow, "build", name)
    assert done.returncode == 0, done.stderr
    found = dict(line.split("=", 1) for line in checkout.output.read_text().splitlines())
    assert found["image"] == "sha256:abc"
    assert found.get("wheel", hashlib.sha256(b"wheel").hexdigest()) == hashlib.sha256(b"wheel").hexdigest()


@pytest.mark.parametrize(
    ("results", "code"),
    [("success success", 0), ("success skipped", 1), ("cancelled success", 1), ("success failure", 1)],
)
def test_a_job_that_was_skipped_has_not_passed(checkout, results, code):
    assert checkout.run("ci", "passed", "Every job has succeeded", RESULTS=results).returncode == code
