"""Releases in a real object store: created once, activated by one object, whole whoever is killed."""

import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from faults.kills import AFTER, BEFORE, DURING, killing
from faults.network import Rule
from faults.processes import Nightscore
from nightscore.clients import build_storage
from nightscore.objects import Bucket
from nightscore.release import PointerError, ReleaseMovedError, Releases, UnknownVersionError, VersionTakenError
from nightscore.release_files import ManifestError, NotWholeError

FILES = {
    "model_lifecycle.py",
    "pipelines/cards/pipeline.yaml",
    "pipelines/loans/pipeline.yaml",
    "roll_back.py",
    "scoring.py",
}


def of(releases, path):
    return f"{releases.prefix}/nightscore/{path}"


def test_a_release_is_uploaded_once_and_active_only_when_it_is_activated(releases, folder):
    manifest, written = releases.upload("1.0", folder("one"), "abc123")
    assert (set(manifest.files), written, manifest.git_revision) == (FILES, 5, "abc123")
    assert releases.active().version is None
    names = [*releases.bucket.iter_names(releases.prefix)]
    assert len(names) == 6
    assert not [name for name in names if name.endswith((".py", ".zip"))], "Airflow would look for DAGs in it"

    again, written = releases.upload("1.0", folder("one", name="copy"), "def456")
    assert (again, written) == (manifest, 0), "the same files are the same release"
    active = releases.activate("1.0", "first")
    assert (active.version, active.last["from"], active.last["reason"]) == ("1.0", None, "first")
    assert releases.activate("1.0", "again") == active, "nothing to do"


def test_a_version_never_changes(releases, folder):
    releases.upload("1.0", folder("one"))
    with pytest.raises(VersionTakenError, match=r"pipelines/cards/pipeline\.yaml, pipelines/loans/pipeline\.yaml"):
        releases.upload("1.0", folder("two"))
    with pytest.raises(VersionTakenError, match=r"pipelines/loans/pipeline\.yaml"):
        releases.upload("1.0", folder("one", ("cards",), name="fewer"))
    assert [item.faults for item in releases.iter_listed()] == [()]


def test_of_two_that_upload_a_version_at_once_one_is_told(releases, settings, folder):
    folders = [folder("one"), folder("two")]
    barrier = threading.Barrier(2)

    def upload(version, made):
        mine = Releases(Bucket(build_storage(settings), settings.bucket), releases.prefix)
        barrier.wait()
        try:
            return mine.upload(version, made)[0]
        except VersionTakenError:
            return None

    with ThreadPoolExecutor(2) as threads:
        for number in range(6):
            made = [*threads.map(upload, [f"1.{number}"] * 2, folders)]
            [won] = [manifest for manifest in made if manifest is not None]
            assert releases.manifest(f"1.{number}") == won
            releases.activate(f"1.{number}", "it is whole")


def test_of_two_that_activate_at_once_one_is_told(releases, settings, folder):
    for version in ("old", "one", "two"):
        releases.upload(version, folder(version))
    releases.activate("old", "first")
    barrier = threading.Barrier(2)

    def activate(version, before):
        mine = Releases(Bucket(build_storage(settings), settings.bucket), releases.prefix)
        barrier.wait()
        try:
            return mine.activate(version, "race", replacing=before).version
        except ReleaseMovedError as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        for _ in range(6):
            before = releases.active().version
            wanted = [version for version in ("old", "one", "two") if version != before]
            found = [*threads.map(activate, wanted, [before] * 2)]
            [won] = [version for version in found if isinstance(version, str)]
            [told] = [error for error in found if isinstance(error, ReleaseMovedError)]
            assert f"{before} is not active any more, but {won}" in str(told)
            assert releases.active().version == won
    assert len(releases.active().moves) == 7


def test_what_was_decided_before_somebody_elses_release_is_not_carried_out(releases, folder):
    for version in ("1", "2", "3"):
        releases.upload(version, folder(f"v{version}"))
    with pytest.raises(ReleaseMovedError, match="1 is not active any more, but nothing"):
        releases.activate("2", "approved late", replacing="1")
    releases.activate("1", "first", replacing="nothing")
    releases.activate("3", "hotfix", replacing="1")
    with pytest.raises(ReleaseMovedError, match="1 is not active any more, but 3, activated by"):
        releases.activate("2", "approved late", replacing="1")
    assert releases.active().version == "3"


def test_rollback_goes_back_and_then_further_back(releases, folder):
    for version in ("1", "2", "3"):
        releases.upload(version, folder(f"v{version}"))
        releases.activate(version, "deployed")
    assert releases.roll_back("worse").version == "2"
    back = releases.roll_back("worse still")
    assert (back.version, back.last["kind"], back.last["from"]) == ("1", "rollback", "2")
    with pytest.raises(UnknownVersionError, match="1 is active and has replaced no release"):
        releases.roll_back("nothing is left")
    with pytest.raises(UnknownVersionError, match="There is no release 33"):
        releases.activate("33", "misspelt")


def test_a_release_that_is_not_whole_is_not_activated(releases, folder):
    releases.upload("1", folder("one"))
    releases.activate("1", "first")
    releases.upload("2", folder("two"))
    name = of(releases, "2/pipelines/cards/pipeline.yaml")
    stored = releases.bucket.read(name)
    assert releases.bucket.delete(name, stored.generation)
    with pytest.raises(NotWholeError, match=r"2 is not whole in gs://.*: pipelines/cards/pipeline\.yaml is missing"):
        releases.activate("2", "half")
    assert releases.bucket.create(name, stored.data.replace(b"two", b"owt"))
    with pytest.raises(NotWholeError, match=r"pipelines/cards/pipeline\.yaml differs"):
        releases.activate("2", "changed")
    with pytest.raises(NotWholeError, match=r"pipelines/cards/pipeline\.yaml differs"):
        releases.download("2", folder("elsewhere").parent / "out")
    with pytest.raises(VersionTakenError, match="cards"):
        releases.upload("2", folder("two", name="again"))
    assert releases.bucket.create(of(releases, "1/pipelines/stranger/pipeline.yaml"), b"{}")
    with pytest.raises(NotWholeError, match="1 file that it does not name, like pipelines/stranger"):
        releases.activate("1", "a pipeline that nobody released")
    assert [bool(item.faults) for item in releases.iter_listed()] == [True, True]
    assert releases.active().version == "1"


def test_what_is_in_the_way_is_said(releases, folder):
    releases.upload("1", folder("one"))
    by_hand = f"{releases.prefix}/scoring.py"
    assert releases.bucket.create(by_hand, b"copied by hand")
    with pytest.raises(PointerError, match=r"holds scoring\.py beside the releases"):
        releases.activate("1", "twice")
    releases.bucket.delete(by_hand, releases.bucket.read(by_hand).generation)
    assert releases.bucket.create(f"{releases.prefix}/nightscore.py", b"import airflow\nRELEASE = print('run')\n")
    with pytest.raises(PointerError, match=r"nightscore\.py is not the pointer to a release"):
        releases.activate("1", "not ours")
    assert releases.bucket.create(of(releases, "2/manifest.json"), b'{"version": "2", "files": {"../../x": {}}}')
    with pytest.raises(ManifestError, match="is not the manifest of the release 2"):
        releases.manifest("2")


def test_old_releases_are_deleted_but_never_those_in_use(releases, folder):
    for number in range(6):
        releases.upload(f"1.{number}", folder(f"v{number}"))
    for version in ("1.0", "1.1"):
        releases.activate(version, "deployed")
    assert releases.clean(2, dry_run=True) == ["1.2", "1.3"]
    assert len(releases.versions()) == 6
    assert releases.clean(2) == ["1.2", "1.3"]
    assert releases.versions() == ["1.0", "1.1", "1.4", "1.5"]
    assert releases.roll_back("worse").version == "1.0"
    assert releases.clean(1) == ["1.4"], "what was active a moment ago is still loaded somewhere"


def nth_write(number):
    """The n-th request of a process that writes, which it sends in threads."""
    lock, count = threading.Lock(), 0

    def fits(call):
        nonlocal count
        with lock:
            count += call.writes
            return call.writes and count == number

    return fits


@pytest.mark.parametrize("when", [BEFORE, pytest.param(DURING, marks=pytest.mark.thorough), AFTER])
def test_killed_anywhere_the_old_release_stays_whole_and_the_next_try_completes(
    releases, folder, network, settings, tmp_path, when
):
    """An upload writes six objects, an activation one; each of them is a place to be killed by SIGKILL."""
    environment = {**network.environment, "NIGHTSCORE_PROJECT": settings.project, "NIGHTSCORE_BUCKET": settings.bucket}
    where = ("--bucket", settings.bucket, "--prefix", releases.prefix)

    def start(*arguments, rule=None, victim=None):
        network.begin(*([Rule(rule, killing(victim, when))] if rule else []))
        process = Nightscore(["release", *arguments, *where], environment, tmp_path)
        if victim:
            victim.set_result(process)
        return process.wait()

    releases.upload("old", folder("old"))
    active = releases.activate("old", "first")
    made = folder("new")
    for number in (1, 2, 4, 6):
        version = f"new-{number}"
        killed = start("upload", version, "--dags", str(made), rule=nth_write(number), victim=Future())
        assert killed.code == -signal.SIGKILL, killed.err
        assert releases.active() == active
        releases._whole("old")
        if number == 1:
            again = start("upload", version, "--dags", str(made))
            assert again.code == 0, again.err
        else:  # the same without a process, which costs seconds
            releases.upload(version, made)
        releases._whole(version)

    killed = start("activate", "new-1", "--reason", "x", rule=nth_write(1), victim=Future())
    assert killed.code == -signal.SIGKILL, killed.err
    if when == BEFORE:
        assert releases.active() == active
    if when == AFTER:
        assert releases.active().version == "new-1"
    assert start("activate", "new-1", "--reason", "x").code == 0
    assert [move["to"] for move in releases.active().moves] == ["old", "new-1"], "moved once"
