"""The image's way into a registry whose tags never move: against a skopeo that keeps what it is given."""

import os

import pytest

SKOPEO = """#!/bin/bash
echo "skopeo $*" >> "$REGISTRY/calls"
case $1 in
  login) cat > /dev/null ;;
  inspect) if [[ -n $SAYS ]]; then echo "$SAYS" >&2; exit 1; fi; echo sha256:there ;;
  copy)
    tag=$REGISTRY/$(basename "${@: -1}")
    test ! -e "$tag" || { echo "manifest invalid: tags are immutable" >&2; exit 1; }
    touch "$tag"
    for it in "$@"; do if [[ $last == --digestfile ]]; then printf %s "$BUILT" > "$it"; fi; last=$it; done ;;
esac
"""
UNKNOWN = 'time="…" level=fatal msg="Error parsing image name: reading manifest v1.2.3 in ghcr.io/x: manifest unknown"'


@pytest.fixture
def registry(checkout, tmp_path):
    folder = tmp_path / "registry"
    folder.mkdir()
    (checkout.folder / "dist").mkdir()
    (checkout.folder / "dist" / "nightscore-1-py3-none-any.whl").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("skopeo", SKOPEO), ("twine", '#!/bin/bash\necho "twine $*" >> "$REGISTRY/calls"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    checkout.environment |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "REGISTRY": str(folder),
        "SAYS": "",
        "TOKEN": "token",
        "IMAGE": "sha256:built",
        "IMAGE_REPOSITORY": "europe-west4-docker.pkg.dev/p/images",
        "PYTHON_REPOSITORY": "https://europe-west4-python.pkg.dev/p/python/",
        "GITHUB_SHA": checkout.first,
        "GITHUB_RUN_ID": "77",
        "GITHUB_REF_NAME": "v1.2.3",
        "GITHUB_ACTOR": "somebody",
    }
    checkout.pushed = folder
    return checkout


def push(registry, attempt, built="sha256:built"):
    name = "Push the image by its digest, and the wheel"
    return registry.run("deploy-environment", "deploy", name, GITHUB_RUN_ATTEMPT=attempt, BUILT=built)


def test_every_attempt_pushes_under_a_tag_of_its_own(registry):
    for attempt in ("1", "2"):
        done = push(registry, attempt)
        assert done.returncode == 0, done.stderr
        assert (registry.pushed / f"nightscore:{registry.first}-77-{attempt}").exists()
    assert push(registry, "2").returncode == 1, "as Artifact Registry does"


def test_another_digest_than_what_was_built_stops_the_job_before_the_wheel(registry):
    assert push(registry, "1", "sha256:other").returncode == 1
    assert "twine" not in (registry.pushed / "calls").read_text()


@pytest.mark.parametrize(
    ("says", "image", "code", "copied", "said"),
    [
        (UNKNOWN, "sha256:built", 0, True, ""),
        ("reading manifest v1.2.3 in ghcr.io/x: name unknown: repository", "sha256:built", 0, True, ""),
        ("", "sha256:there", 0, False, ""),
        ("", "sha256:built", 1, False, "is sha256:there already, and not sha256:built"),
        ("dial tcp: i/o timeout", "sha256:built", 1, False, "dial tcp: i/o timeout"),
        ("unauthorized: authentication required", "sha256:built", 1, False, "unauthorized"),
        ("received unexpected HTTP status: 503", "sha256:built", 1, False, "cannot be told"),
    ],
)
def test_a_release_is_pushed_only_where_its_tag_is_known_to_be_free(registry, says, image, code, copied, said):
    done = registry.run("release", "publish", "Push the image", SAYS=says, IMAGE=image)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert ("skopeo copy" in (registry.pushed / "calls").read_text()) == copied
