"""`nightscore release`, as people run it."""

import json
import uuid

import pytest


@pytest.fixture
def where(environment):
    return ("--bucket", environment["NIGHTSCORE_BUCKET"], "--prefix", f"dags-{uuid.uuid4().hex[:10]}")


def write(folder, text):
    (folder / "dags" / "pipelines" / "cards").mkdir(parents=True, exist_ok=True)
    (folder / "dags" / "scoring.py").write_text("# Airflow's DAGs\n")
    (folder / "dags" / "pipelines" / "cards" / "pipeline.yaml").write_text(text)


def test_from_the_first_upload_to_a_rollback(nightscore, where, tmp_path):
    assert "There are no releases in gs://" in nightscore("release", "list", *where).stdout
    for version in ("1.0", "1.1"):
        write(tmp_path, f"owner: {version}\n")
        assert nightscore("release", "upload", version, *where).stdout == f"Uploaded {version}: 2 of 2 files.\n"
        told = nightscore("release", "activate", version, "--reason", "deployed", *where).stdout
        assert told.startswith(f"{version} is active in gs://")
    assert told.endswith("; it was 1.0.\n")
    again = nightscore("release", "upload", "1.1", *where).stdout
    assert again == "Uploaded 1.1: all 2 files were there already.\n"

    found = json.loads(nightscore("release", "list", "--json", *where).stdout)
    assert found["active"] == "1.1"
    assert [(item["version"], item["active"], item["whole"]) for item in found["releases"]] == [
        ("1.0", False, True),
        ("1.1", True, True),
    ]
    assert [move["to"] for move in found["moves"]] == ["1.0", "1.1"]
    assert "1.0 is active" in nightscore("release", "rollback", "--reason", "worse", *where).stdout
    lines = nightscore("release", "list", *where).stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("1.")] == [["1.0", "active"], ["1.1", "whole"]]

    assert "2 files are in" in nightscore("release", "download", "1.1", "out", *where).stdout
    assert (tmp_path / "out" / "pipelines" / "cards" / "pipeline.yaml").read_text() == "owner: 1.1\n"
    assert (tmp_path / "out" / "scoring.py").is_file()
    assert nightscore("release", "clean", "--keep", "1", *where).stdout == "There is nothing to delete.\n"


def test_what_cannot_be_done_is_said(nightscore, where, tmp_path):
    write(tmp_path, "owner: one\n")
    nightscore("release", "upload", "1.0", *where)
    write(tmp_path, "owner: two\n")
    taken = nightscore("release", "upload", "1.0", *where)
    assert (taken.returncode, "is there with other files (pipelines/cards/pipeline.yaml)" in taken.stderr) == (2, True)
    late = nightscore("release", "activate", "1.0", "--reason", "x", "--replacing", "0.9", *where)
    assert (late.returncode, "0.9 is not active any more, but nothing" in late.stderr) == (2, True)
    near = nightscore("release", "activate", "1.00", "--reason", "x", *where)
    assert (near.returncode, "Did you mean `1.0`?" in near.stderr) == (2, True)
    back = nightscore("release", "rollback", "--reason", "x", *where)
    assert (back.returncode, "Nothing is active" in back.stderr) == (2, True)
    full = nightscore("release", "download", "1.0", ".", *where)
    assert (full.returncode, "is not empty" in full.stderr) == (2, True)
