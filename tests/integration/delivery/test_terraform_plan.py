"""Terraform's plan: what a pull request is told, and that nothing but what was approved is applied."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from workflows import ROOT

SCRIPTS = ROOT / ".github" / "scripts"
ROOT_MODULE = """
variable "package" {
  type    = string
  default = null
}
variable "password" {
  type      = string
  sensitive = true
}
resource "terraform_data" "airflow" {
  input = { package = var.package, password = var.password }
}
"""
needs_terraform = pytest.mark.skipif(
    shutil.which("terraform") is None, reason="Terraform is not installed: no plan of it was read here."
)


@pytest.fixture
def terraform(checkout, tmp_path):
    """A root whose state is a file: the backend's settings are taken away before the real terraform sees them."""
    root = tmp_path / "root"
    (root / "environments").mkdir(parents=True)
    (root / "main.tf").write_text(ROOT_MODULE)
    (root / "environments" / "dev.tfvars").write_text('password = "correct horse"\n')
    shim = tmp_path / "bin" / "terraform"
    shim.parent.mkdir()
    shim.write_text(
        "#!/bin/bash\narguments=()\n"
        'for it in "$@"; do [[ $it == -backend-config=* ]] || arguments+=("$it"); done\n'
        f'exec {shutil.which("terraform")} "${{arguments[@]}}"\n'
    )
    shim.chmod(0o755)
    checkout.environment |= {
        "TERRAFORM_ROOT": str(root),
        "CHECKPOINT_DISABLE": "1",
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "ENVIRONMENT": "dev",
        "STATE_BUCKET": "example-state",
        "OUT": str(tmp_path / "plan"),
        "BACKEND": str(tmp_path / "backend.tfbackend"),
    }
    checkout.out, checkout.root = tmp_path / "plan", root
    return checkout


def plan(checkout, name="Plan", job="plan", package="0.1.0.dev1"):
    checkout.output.unlink(missing_ok=True)
    done = checkout.run("deploy-environment", job, name, TF_VAR_package=package, LOCK="false")
    assert done.returncode == 0, done.stderr
    return checkout.output.read_text().strip().removeprefix("digest=")


def apply(checkout, approved, found):
    return checkout.run("deploy-environment", "deploy", "Apply what was approved", APPROVED=approved, FOUND=found)


@needs_terraform
def test_a_pull_request_is_told_what_changes_and_no_value(terraform):
    terraform.run("deploy", "plan", "Plan", LOCK="false")
    text = (terraform.out / "plan.md").read_text()
    assert text == terraform.summary.read_text()
    assert text.startswith("### Terraform plan for dev: 1 to add\n")
    assert "| `+` | `terraform_data.airflow` |  |" in text
    assert "correct horse" in (terraform.out / "plan.json").read_text(), "which is why that file goes nowhere"
    assert "correct horse" not in text
    backend = (terraform.folder.parent / "backend.tfbackend").read_text()
    assert backend == 'bucket = "example-state"\nprefix = "nightscore"\n'
    planned = json.loads((terraform.out / "plan.json").read_text())
    assert planned["variables"]["package"]["value"].startswith("0.1.0.dev"), "the wheel of this commit"


@needs_terraform
def test_what_was_approved_is_applied_and_nothing_else(terraform):
    approved = plan(terraform)
    again = plan(terraform, "Plan again", "deploy")
    assert again == approved, "nothing has changed in between"
    done = apply(terraform, approved, again)
    assert done.returncode == 0, done.stderr
    assert "1 added" in done.stdout

    approved = plan(terraform, package="0.1.0.dev2")
    (terraform.root / "environments" / "dev.tfvars").write_text('password = "somebody else\'s"\n')
    again = plan(terraform, "Plan again", "deploy", package="0.1.0.dev2")
    done = apply(terraform, approved, again)
    assert done.returncode == 1
    assert "The plan is not the one that was approved" in done.stderr
    assert "else's" not in done.stderr + done.stdout
    state = json.loads((terraform.root / "terraform.tfstate").read_text())
    assert state["resources"][0]["instances"][0]["attributes"]["input"]["value"]["package"] == "0.1.0.dev1"
    assert apply(terraform, "", "").returncode == 1, "an approval of nothing is none"


@needs_terraform
def test_a_plan_that_changes_who_may_do_what_is_left_to_people(terraform):
    approved = plan(terraform)
    planned = json.loads((terraform.out / "plan.json").read_text())
    for kind in ("google_project_iam_member", "google_service_account", "google_iam_workload_identity_pool_provider"):
        grant = {**change(f"{kind}.this", ["create"], None, {}), "type": kind}
        content = {**planned, "resource_changes": [*planned["resource_changes"], grant]}
        (terraform.out / "plan.json").write_text(json.dumps(content))
        done = apply(terraform, approved, approved)
        assert done.returncode == 1
        assert f"Apply this by hand, then run all jobs again:\n{kind}.this\n" in done.stderr
        assert "**It changes who may do what (1).**" in summary(terraform.out.parent, content["resource_changes"])
    assert not (terraform.root / "terraform.tfstate").exists()


@needs_terraform
def test_a_plan_that_fails_stops_the_job(terraform):
    (terraform.root / "main.tf").write_text("resource {}\n")
    done = terraform.run("deploy-environment", "plan", "Plan", TF_VAR_package="1", LOCK="false")
    assert done.returncode != 0
    assert not (terraform.out / "plan.md").exists()


def change(address, actions, before=None, after=None, **more):
    return {"address": address, "change": {"actions": actions, "before": before, "after": after, **more}}


def summary(tmp_path, changes, argument="prod"):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"resource_changes": changes, "output_changes": {}}))
    command = [sys.executable, str(SCRIPTS / "plan_summary.py"), str(path), argument]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_is_destroyed_comes_first_and_is_never_cut_off(tmp_path):
    many = [change(f'google_x.new["{number:05}"]', ["create"], None, {"name": "x"}) for number in range(3000)]
    gone = change("google_y.old", ["delete"], {"name": "secret"}, None)
    text = summary(tmp_path, [*many, gone])
    assert len(text) < 62_000
    assert "**Something is destroyed.**" in text
    assert text.index("google_y.old") < text.index('google_x.new["00000"]')
    assert "more; the job's log has all of them." in text
    assert "3000 to add" in text


def test_attributes_are_named_and_no_value_is(tmp_path):
    before, after = {"labels": {"a": "s3cret"}, "name": "same"}, {"labels": {"a": "t0ken"}, "name": "same", "size": 3}
    text = summary(
        tmp_path,
        [
            change("a.b", ["update"], before, after, after_unknown={"etag": True}),
            change("a.c", ["delete", "create"], before, after, replace_paths=[["labels", "a"]]),
            change("a.d", ["no-op"], before, before),
            change("a.e", ["no-op"], before, before, importing={"id": "x"}),
            change("a.f", ["forget"], before, None),
            change("data.g", ["read"], None, {}),
        ],
    )
    assert "| `~` | `a.b` | `etag`, `labels`, `size` |" in text
    assert "| `-/+` | `a.c` | `labels` (forces the replacement), `size` |" in text
    assert "| `import` | `a.e` |  |" in text
    assert "1 to replace, 1 to forget, 1 to change, 1 to import" in text
    assert "a.d" not in text
    assert "data.g" not in text
    assert not [value for value in ("s3cret", "t0ken") if value in text]


def test_an_address_cannot_write_markdown_of_its_own(tmp_path):
    text = summary(tmp_path, [change('x.y["`|</td>\n\n# @everyone`"]', ["create"], None, {})])
    [row] = [line for line in text.splitlines() if "everyone" in line]
    assert row == "| `+` | `x.y[\"'\\|</td> # @everyone'\"]` |  |"


def test_the_digest_is_of_all_that_changes(tmp_path):
    one = change("a.b", ["update"], {"x": 1}, {"x": 2})
    same = summary(tmp_path, [one], "--digest")
    assert same == summary(tmp_path, [change("a.c", ["no-op"], {}, {}), one], "--digest")
    assert same != summary(tmp_path, [change("a.b", ["update"], {"x": 1}, {"x": 3})], "--digest")
    assert same != summary(tmp_path, [change("a.b2", ["update"], {"x": 1}, {"x": 2})], "--digest")


def test_no_changes_are_said(tmp_path):
    assert summary(tmp_path, []).startswith("### Terraform plan for prod: no changes\n")
