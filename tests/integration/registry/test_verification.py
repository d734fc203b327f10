"""`models verify`: every change of what was registered is found and named."""

import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

from nightscore.registry.manifest import digest
from nightscore.registry.store import ModelNotFoundError
from nightscore.registry.verification import verify
from nightscore.run import build_services

FRAME = pd.DataFrame({"age": np.linspace(18, 90, 100), "limit_bal": np.linspace(0, 1, 100) ** 2})


@pytest.fixture
def desk(settings, tmp_path):
    registry = build_services(settings).registry

    class Desk:
        name = f"m{uuid.uuid4().hex[:12]}"

        def register(self, **kwargs):
            file, sample = tmp_path / "model.skops", tmp_path / "sample.parquet"
            skops_io.dump(LogisticRegression().fit(FRAME, FRAME.age > 40), file)
            parquet.write_table(pa.Table.from_pandas(FRAME, preserve_index=False), sample)
            return registry.register(self.name, file, sample, **kwargs)

        def blob(self, file):
            return registry.bucket._bucket.blob(f"registry/models/{self.name}/{file}")

        def found(self):
            return {item.label.removeprefix(self.name): item for item in verify(registry, self.name)}

    found = Desk()
    found.registry = registry
    return found


def test_what_was_not_touched_is_whole(desk):
    version = desk.register(alias="champion")
    found = desk.found()
    size = sum(file.size for file in version.manifest.files.values())
    assert (found["/1"].files, found["/1"].size, found["/1"].faults) == (3, size, ())
    assert found["/1"].notes == ("ok, not signed",)
    assert found["@champion"].notes == ("points to 1",)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("model.skops", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "model.skops was changed after it was"),
        ("model.skops", lambda data: data[: len(data) // 2], "model.skops was changed after it was registered"),
        ("model.skops", lambda data: data + b"\x00" * 10, "model.skops was changed after it was registered"),
        ("reference.json", lambda data: data.replace(b'"rows": 100', b'"rows": 101'), "reference.json was changed"),
        (
            "manifest.json",
            lambda data: data.replace(b'"sample_rows": 100', b'"sample_rows": 101'),
            "its manifest is not",
        ),
        ("manifest.json", lambda data: b"{}", "is not a manifest"),
    ],
    ids=["bit", "truncated", "longer", "reference", "manifest", "no_manifest"],
)
def test_a_change_is_named(desk, file, change, words):
    desk.register(alias="champion")
    blob = desk.blob(f"versions/1/{file}")
    blob.upload_from_string(change(blob.download_as_bytes()))
    found = desk.found()
    assert words in found["/1"].faults[0]
    assert bool(found["@champion"].faults) == (file == "manifest.json")


def test_swapped_gone_and_strange_files_are_named(desk):
    desk.register(alias="champion")
    desk.register(alias="challenger")
    swapped = desk.blob("versions/2/manifest.json").download_as_bytes()
    desk.blob("versions/1/manifest.json").upload_from_string(swapped)
    desk.blob("versions/2/model.skops").delete()
    desk.blob("versions/2/notes.txt").upload_from_string(b"hello")
    desk.blob("versions/3/model.skops").upload_from_string(b"half a registration")
    found = desk.found()
    assert f"is the manifest of {desk.name}/2" in found["/1"].faults[0]
    gone, strange = found["/2"].faults
    assert "versions/2/model.skops is gone" in gone
    assert strange == "notes.txt is not part of it"
    assert (found["/3"].faults, found["/3"].notes) == ((), ("its registration was not completed; it is no version",))


def test_a_version_that_was_replaced_as_a_whole_is_told_by_the_alias_that_once_pointed_to_it(desk):
    """Manifest and files fit each other; only the alias remembers the digest of the one that was there."""
    desk.register(alias="champion")
    second = desk.register()
    desk.registry.move_alias(desk.registry.alias(desk.name, "champion"), second, "next")
    data = desk.blob("versions/1/manifest.json").download_as_bytes()
    changed = data.replace(b'"created_by": "', b'"created_by": "x')
    desk.blob("versions/1/manifest.json").upload_from_string(changed)
    [fault] = desk.found()["/1"].faults
    assert fault == (
        f"its manifest is not the one that {desk.name}@champion was pointed to: its SHA-256 is "
        f"{digest(changed)[:16]}…, not {digest(data)[:16]}…"
    )


def test_a_model_that_is_not_there(desk):
    with pytest.raises(ModelNotFoundError, match="There is no model"):
        desk.found()


def test_objects_that_are_no_versions_and_no_aliases(desk):
    desk.register(alias="champion")
    for folder in ("²", "01", "notes"):
        desk.blob(f"versions/{folder}/model.skops").upload_from_string(b"strange")
    desk.blob("aliases/broken.json").upload_from_string(b"{}")
    assert desk.registry.versions(desk.name) == [1]
    assert (
        desk.found()["@broken"]
        .faults[0]
        .endswith("aliases/broken.json is not an alias. Restore the object's earlier generation.")
    )
    assert desk.found()["/1"].faults == ()
    desk.blob("aliases/broken.json").delete()
    assert desk.register().label == f"{desk.name}/2"


def test_a_version_that_is_gone_is_missed_and_its_number_never_given_again(desk):
    desk.register(alias="champion")
    second = desk.register(alias="champion")
    for file in ("manifest.json", "model.skops", "reference.json"):
        desk.blob(f"versions/2/{file}").delete()
    assert desk.found()["/2"].faults == (f"it is gone; {desk.name}@champion has pointed to it",)
    assert desk.register().manifest.version == second.manifest.version + 1
