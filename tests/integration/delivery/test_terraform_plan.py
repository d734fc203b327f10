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
ALLOWED = {"create": ["terraform_data", "google_x"], "update": ["terraform_data", "google_composer_environment"]}
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
    (root / "deployer.json").write_text(json.dumps(ALLOWED))
    shim = tmp_path / "bin" / "terraform"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\narguments=()\n'
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
    done = checkout.run(
        "deploy-environment", "deploy", "Compare with what was approved", APPROVED=approved, FOUND=found
    )
    return done if done.returncode else checkout.run("deploy-environment", "deploy", "Apply what was approved")


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
    assert 'Then run the job "plan" of this environment again' in done.stderr
    assert "else's" not in done.stderr + done.stdout
    state = json.loads((terraform.root / "terraform.tfstate").read_text())
    assert state["resources"][0]["instances"][0]["attributes"]["input"]["value"]["package"] == "0.1.0.dev1"
    assert apply(terraform, "", "").returncode == 1, "an approval of nothing is none"


LEFT = [
    ("add", "google_project_iam_member", ["create"]),
    ("add", "google_service_account", ["create"]),
    ("change", "google_iam_workload_identity_pool_provider", ["update"]),
    ("add", "google_composer_environment", ["create"]),
    ("change", "google_x", ["update"]),
    ("destroy", "terraform_data", ["delete"]),
    ("replace", "terraform_data", ["delete", "create"]),
    ("replace", "terraform_data", ["create", "delete"]),
]


@pytest.mark.parametrize(("word", "kind", "actions"), LEFT)
def test_what_the_deployer_may_not_do_is_left_to_people(tmp_path, word, kind, actions):
    left = {**change(f"{kind}.this", actions, {}, {}), "type": kind}
    assert summary(tmp_path, [left], "--people") == f"{word} {kind}.this\n"
    text = summary(tmp_path, [left])
    assert "**People must apply 1 of these before this is deployed:** the deployer may not.\n\n* `" in text
    assert f"* `{word} {kind}.this`\n" in text
    assert ("**It changes who may do what (1).**" in text) == kind.startswith(
        ("google_project_iam", "google_s", "google_i")
    )


def test_what_the_deployer_may_do_is_left_to_it(tmp_path):
    mine = [
        {**change("a.b", actions, {}, {}, **more), "type": kind}
        for kind, actions, more in (
            ("google_x", ["create"], {}),
            ("google_composer_environment", ["update"], {}),
            ("google_y", ["forget"], {}),
            ("google_y", ["no-op"], {"importing": {"id": "x"}}),
        )
    ]
    assert summary(tmp_path, mine, "--people") == ""
    assert "People must apply" not in summary(tmp_path, mine)


def test_many_that_people_must_apply_are_counted(tmp_path):
    text = summary(tmp_path, [change(f"google_y.n{number:03}", ["create"]) for number in range(100)])
    assert "People must apply 100 of these" in text
    assert "* … and 60 more\n" in text


def test_a_list_that_is_missing_allows_nothing(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"resource_changes": []}))
    command = [sys.executable, str(SCRIPTS / "plan_summary.py"), str(path), "--people"]
    environment = {**os.environ, "TERRAFORM_ROOT": str(tmp_path)}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 1


def test_the_deployers_list_grants_and_deletes_nothing():
    allowed = json.loads((ROOT / "terraform" / "deployer.json").read_text())
    assert set(allowed) <= {"create", "update"}
    assert "google_composer_environment" in allowed["update"]
    assert "google_composer_environment" not in allowed["create"]
    assert not [kind for kinds in allowed.values() for kind in kinds if "_iam_" in kind or "service_account" in kind]


@needs_terraform
def test_nothing_is_applied_that_people_must_apply(terraform):
    (terraform.root / "deployer.json").write_text('{"update": ["terraform_data"]}')
    approved = plan(terraform)
    assert "**People must apply 1 of these" in (terraform.out / "plan.md").read_text()
    done = apply(terraform, approved, approved)
    assert done.returncode == 1
    assert 'Apply it by hand. Then run the job "plan" of this environment again' in done.stderr
    assert done.stderr.endswith("\nadd terraform_data.airflow\n")
    assert not (terraform.root / "terraform.tfstate").exists()


@needs_terraform
def test_providers_that_are_locked_stay_so(terraform):
    plan(terraform)
    (terraform.root / ".terraform.lock.hcl").write_text("")
    plan(terraform)
    first, second = [line for line in (terraform.folder.parent / "calls").read_text().splitlines() if " init " in line]
    assert ("-lockfile=readonly" in first, "-lockfile=readonly" in second) == (False, True)


POLICIES = """
def airflow_is_private(plan):
    if plan.content["open"]:
        yield "Airflow has a way to the internet"

def told_by_a_value(plan):
    {"correct horse": 1}[plan.content["secret"]]
    yield from ()

POLICIES = (airflow_is_private, told_by_a_value)
"""
FAULTS = """\
airflow_is_private: Airflow has a way to the internet
told_by_a_value: it cannot be told (KeyError)
2 policies, 2 faults
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"open": False, "secret": "correct horse"}, "2 policies, 0 faults\n"),
        (
            {"open": True, "secret": "battery staple"},
            FAULTS,
        ),
    ],
)
@pytest.mark.parametrize(("workflow", "job"), [("deploy", "plan"), ("deploy-environment", "plan")])
def test_a_plan_is_held_to_the_policies(checkout, workflow, job, content, said):
    folder = checkout.folder / "tests" / "terraform"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "terraform" / "plan.py", folder)
    (folder / "policies.py").write_text(POLICIES)
    (checkout.folder / "plan.json").write_text(json.dumps(content))
    done = checkout.run(workflow, job, "Hold the plan to the policies", OUT=str(checkout.folder))
    assert (done.stdout, done.returncode) == (said, 0 if said.endswith(" 0 faults\n") else 1), done.stderr


def test_the_policies_need_nothing_but_python(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    command = [sys.executable, "-I", "-S", str(SCRIPTS / "plan_policies.py"), str(tmp_path / "plan.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "only_allowed_roles: it cannot be told (KeyError)" in done.stdout


@needs_terraform
def test_a_plan_that_fails_stops_the_job(terraform):
    (terraform.root / "main.tf").write_text("resource {}\n")
    done = terraform.run("deploy-environment", "plan", "Plan", TF_VAR_package="1", LOCK="false")
    assert done.returncode != 0
    assert not (terraform.out / "plan.md").exists()


def change(address, actions, before=None, after=None, **more):
    kind = address.partition(".")[0]
    return {"address": address, "type": kind, "change": {"actions": actions, "before": before, "after": after, **more}}


def summary(tmp_path, changes, argument="prod"):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"resource_changes": changes, "output_changes": {}}))
    command = [sys.executable, str(SCRIPTS / "plan_summary.py"), str(path), argument]
    (tmp_path / "deployer.json").write_text(json.dumps(ALLOWED))
    environment = {**os.environ, "TERRAFORM_ROOT": str(tmp_path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


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
    [row] = [line for line in text.splitlines() if line.startswith("| `+`")]
    assert "\n# " not in text
    assert row == "| `+` | `x.y[\"'\\|</td> # @everyone'\"]` |  |"


def test_the_digest_is_of_all_that_changes(tmp_path):
    one = change("a.b", ["update"], {"x": 1}, {"x": 2})
    same = summary(tmp_path, [one], "--digest")
    assert same == summary(tmp_path, [change("a.c", ["no-op"], {}, {}), one], "--digest")
    assert same != summary(tmp_path, [change("a.b", ["update"], {"x": 1}, {"x": 3})], "--digest")
    assert same != summary(tmp_path, [change("a.b2", ["update"], {"x": 1}, {"x": 2})], "--digest")


def test_no_changes_are_said(tmp_path):
    assert summary(tmp_path, []).startswith("### Terraform plan for prod: no changes\n")
