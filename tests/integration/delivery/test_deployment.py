"""From the built files to Airflow's bucket: upload, plan every pipeline with what was uploaded, activate."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sklearn.linear_model import LogisticRegression

from nightscore.clients import build_storage
from nightscore.objects import Bucket
from nightscore.release import Releases

ROWS = pd.DataFrame({"age": np.arange(20, 60), "limit_bal": np.linspace(0, 1, 40)})


@pytest.fixture
def deployment(checkout, environment, bench, settings, tmp_path, local_servers):
    """A checkout with one pipeline that is ready, and Airflow's bucket."""
    name = f"airflow-{uuid.uuid4().hex[:10]}"
    checkout.airflow = build_storage(settings).create_bucket(name)
    checkout.environment |= {
        **environment,
        "DAGS_BUCKET": name,
        "GITHUB_SHA": checkout.first,
        "UPLOADED": str(tmp_path / "uploaded"),
        "REASON": "a run of a workflow",
        "TRUSTED_SIGNERS": "",
        "SIGNERS": str(tmp_path / "signers"),
    }
    yesterday = (pd.Timestamp.now("UTC") - pd.Timedelta(days=1)).date()
    rows = ROWS.assign(id=range(len(ROWS)), snapshot_date=yesterday)
    bench.write("features", pa.Table.from_pandas(rows, preserve_index=False))
    bench.register(LogisticRegression().fit(ROWS, ROWS.age > 40), pa.Table.from_pandas(ROWS, preserve_index=False))
    (checkout.folder / "dags").mkdir()
    (checkout.folder / "dags" / "scoring.py").write_text("# Airflow's DAGs\n")
    checkout.bench, checkout.releases = bench, Releases(Bucket(build_storage(settings), name))

    def write(pipeline, **changes):
        folder = checkout.folder / "dags" / "pipelines" / pipeline
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pipeline.yaml").write_text(bench.spec_text(**changes))

    def deploy(*names):
        commit = checkout.commit()
        checkout.environment |= {"GITHUB_SHA": commit, "RELEASE": f"r-{commit[:12]}"}
        found = [checkout.run("deploy-environment", "deploy", name) for name in names]
        return found if len(found) > 1 else found[0]

    def upload():
        """Do as the step does, without a process."""
        commit = checkout.commit()
        checkout.environment |= {"GITHUB_SHA": commit, "RELEASE": f"r-{commit[:12]}"}
        checkout.releases.upload(checkout.environment["RELEASE"], checkout.folder / "dags", commit)
        return checkout.environment["RELEASE"], commit

    checkout.write, checkout.deploy, checkout.upload = write, deploy, upload
    write(bench.name)
    return checkout


STEPS = ("Upload the release", "Plan every pipeline with it", "Activate it")


def test_a_release_is_uploaded_planned_and_activated(deployment):
    uploaded, planned, activated = deployment.deploy(*STEPS)
    assert uploaded.returncode == 0, uploaded.stderr
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert f"{deployment.bench.name}: ready" in planned.stdout
    assert "1 planned, 0 failed" in planned.stdout
    assert activated.returncode == 0, activated.stderr
    active = deployment.releases.active()
    assert active.version == deployment.environment["RELEASE"]
    assert active.last["reason"] == "a run of a workflow"
    assert deployment.releases.manifest(active.version).git_revision == deployment.environment["GITHUB_SHA"]
    # The job is run again: everything is there, nothing moves.
    assert [deployment.run("deploy-environment", "deploy", name).returncode for name in (STEPS[0], STEPS[2])] == [0, 0]
    assert deployment.releases.active() == active
    cleaned = deployment.run("deploy-environment", "deploy", "Delete old releases")
    assert (cleaned.returncode, cleaned.stdout) == (0, "There is nothing to delete.\n")


def test_a_pipeline_that_cannot_run_keeps_the_release_from_being_activated(deployment):
    deployment.write("no_model", model={"name": "nobody_has_registered_it"})
    deployment.write("no_rows", features={"reject": {"all": "TRUE"}}, limits={"max_rows": 1})
    folder = deployment.folder / "dags" / "pipelines" / "broken"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text("owner: 2026-13-45\n")
    deployment.upload()
    planned = deployment.run("deploy-environment", "deploy", STEPS[1])
    assert planned.returncode == 1
    assert "no_model: FAILED" in planned.stdout
    assert "broken: FAILED" in planned.stdout
    assert "no_rows: blocked by its data" in planned.stdout, "which is what a night may be"
    assert f"{deployment.bench.name}: ready" in planned.stdout
    assert "4 planned, 2 failed" in planned.stdout
    assert deployment.releases.active().version is None


def test_pipelines_are_planned_with_the_signers_that_airflow_trusts(deployment):
    deployment.environment["TRUSTED_SIGNERS"] = "/home/airflow/gcs/data/signers"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    deployment.airflow.blob("data/signers/owners.pem").upload_from_string(pem)
    deployment.airflow.blob("data/signers/older/owners.pem").upload_from_string(b"not looked at")
    deployment.upload()
    planned = deployment.run("deploy-environment", "deploy", STEPS[1])
    assert [path.name for path in Path(deployment.environment["SIGNERS"]).iterdir()] == ["owners.pem"]
    assert planned.returncode == 1
    assert f"{deployment.bench.name}: FAILED" in planned.stdout, "nobody has signed its model"
    assert "sign" in planned.stdout


@pytest.mark.thorough
def test_signers_that_are_nowhere_stop_the_job(deployment):
    deployment.environment["TRUSTED_SIGNERS"] = "/home/airflow/gcs/data/signers"
    deployment.upload()
    planned = deployment.run("deploy-environment", "deploy", STEPS[1])
    assert (planned.returncode, "data/signers/ has no files" in planned.stderr) == (1, True), planned.stderr


def test_a_folder_without_pipelines_is_no_success(deployment):
    empty = deployment.folder / "empty"
    empty.mkdir()
    deployment.environment |= {"NIGHTSCORE_PIPELINES_DIR": str(empty), "PARTITION": "2026-11-19"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ".github/scripts/smoke.sh"],
        cwd=deployment.folder,
        env={**os.environ, **deployment.environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "There are no pipelines in" in done.stderr) == (2, True)


def test_an_approval_that_comes_after_a_newer_release_changes_nothing(deployment):
    waiting = deployment.upload()
    deployment.write("newer")
    deployment.releases.activate(deployment.upload()[0], "a run of a workflow")
    active = deployment.releases.active()

    deployment.git("checkout", "--quiet", waiting[1])
    late = deployment.run("deploy-environment", "deploy", "Activate it", RELEASE=waiting[0])
    assert late.returncode == 1
    assert f"The active release {active.version} is of" in late.stderr
    assert deployment.releases.active() == active

    assert deployment.releases.activate(waiting[0], "by hand").version == waiting[0], "people may"
    deployment.git("checkout", "--quiet", "main")
    forth = deployment.run("deploy-environment", "deploy", "Activate it")
    assert forth.returncode == 0, forth.stderr
    assert deployment.releases.active().version == active.version
