"""What may be released, and what a manifest may say."""

import json

import pytest

from nightscore.release import VersionNameError, _require_version, read_files, read_pointer, write_pointer
from nightscore.release_files import ManifestError, ReleaseFileError, parse_manifest

FILE = {"size": 1, "sha256": "", "crc32c": ""}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lib/helpers.py", "DAG files lie directly in the folder"),
        ("pipelines/a/pipeline.yaml.zip", "archives nowhere"),
        ("with space.yaml", "use letters, digits"),
        ("scoring.py.txt", "taken for releases' own files"),
        ("manifest.json", "taken for releases' own files"),
        ("nightscore.py", "taken for releases' own files"),
    ],
)
def test_what_airflow_or_a_release_would_mistake_is_refused(tmp_path, name, said):
    (tmp_path / "scoring.py").write_text("")
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_text("")
    with pytest.raises(ReleaseFileError, match=said):
        read_files(tmp_path)


def test_links_large_files_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ReleaseFileError, match="There is no DAG file in"):
        read_files(tmp_path)
    (tmp_path / "scoring.py").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseFileError, match="it is a link"):
        read_files(tmp_path)
    (tmp_path / "scoring.py").unlink()
    (tmp_path / "scoring.py").write_bytes(b"#" * (8 * 2**20 + 1))
    with pytest.raises(ReleaseFileError, match="larger than 8 MiB"):
        read_files(tmp_path)


def test_hidden_and_compiled_files_are_left_out(tmp_path):
    for name in ("scoring.py", ".airflowignore", ".git/config", "__pycache__/scoring.pyc", "pipelines/a/pipeline.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("")
    assert set(read_files(tmp_path)) == {"scoring.py", "pipelines/a/pipeline.yaml"}


@pytest.mark.parametrize("version", ["", "1.0+local", "V1", "../1", "a/b", "x.zip", "x.py", "nothing", "1" * 81])
def test_versions_are_names_that_airflow_does_not_look_into(version):
    with pytest.raises(VersionNameError, match="is not a version of a release"):
        _require_version(version)
    assert _require_version("0.1.0.dev20261130225501") == "0.1.0.dev20261130225501"


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"version": "1"},
        {
            "version": "1",
            "package": "0",
            "git_revision": None,
            "files": {"../x": {"size": 1, "sha256": "", "crc32c": ""}},
        },
        {
            "version": "1",
            "package": "0",
            "git_revision": None,
            "files": {"/x": {"size": 1, "sha256": "", "crc32c": ""}},
        },
        {"version": "2", "package": "0", "git_revision": None, "files": {}},
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(content):
    with pytest.raises(ManifestError, match=r"is (not )?the manifest of"):
        parse_manifest("1", json.dumps(content).encode(), "it")


def test_the_pointer_is_a_dag_file_that_holds_whatever_reason_was_given():
    reason = 'it\'s "urgent" {so} \\ """\nnew line'
    data = write_pointer({"version": "1", "moves": [{"reason": reason}]})
    assert read_pointer(data)["moves"] == [{"reason": reason}]
    assert b"dag" in data.lower(), "Airflow reads no file without these two words"
    assert b"airflow" in data.lower(), "Airflow reads no file without these two words"
    compile(data, "nightscore.py", "exec")
