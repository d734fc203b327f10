"""Policies over all workflows: each is a function that finds faults, and each has a workflow in which it finds one."""

import re

import pytest

from workflows import FILES, ROOT, load

OWNERS = {"actions", "anchore", "google-github-actions", "hashicorp"}
READS = ({}, {"contents": "read"})


def uses(workflow):
    for job in workflow["jobs"].values():
        yield from (item["uses"] for item in [job, *job.get("steps", ())] if "uses" in item)


def unpinned(text, workflow):
    """Actions by a commit, with the version beside it: a tag can be moved."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"\s*(- )?uses: (?!\./)", line)]
    assert len(lines) == sum(not name.startswith("./") for name in uses(workflow))
    wanted = r"(- )?uses: [\w-]+/[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+"
    return [line for line in lines if not re.fullmatch(wanted, line)]


def strangers(text, workflow):
    """Actions of a few owners that were looked at."""
    return [name for name in uses(workflow) if not name.startswith("./") and name.split("/")[0] not in OWNERS]


def generous(text, workflow):
    """Nothing but reading for a whole workflow; whatever a job needs beyond that, it asks for itself."""
    return [] if workflow.get("permissions") in READS else ["permissions"]


def dangerous_triggers(text, workflow):
    """Triggers that give strangers' pull requests what the branch has."""
    return sorted({"pull_request_target", "workflow_run", "issue_comment"} & set(workflow["on"]))


def endless(text, workflow):
    """Jobs that may hang for six hours."""
    return [name for name, job in workflow["jobs"].items() if "uses" not in job and "timeout-minutes" not in job]


def kept_credentials(text, workflow):
    """Checkouts that leave a token behind for whatever runs after them."""
    return [
        name
        for name, job in workflow["jobs"].items()
        for item in job.get("steps", ())
        if item.get("uses", "").startswith("actions/checkout@") and item["with"].get("persist-credentials") != "false"
    ]


def secrets(text, workflow):
    """Secrets: there are none, and calls of other workflows hand none over."""
    return re.findall(r"\bsecrets\b", text)


def interpolation(text, workflow):
    """Scripts into which GitHub writes before bash reads them; values come as variables."""
    return [
        item["run"]
        for job in workflow["jobs"].values()
        for item in job.get("steps", ())
        if "${{" in item.get("run", "")
    ]


def unhashed(text, workflow):
    """Packages that whoever has an identity installs, and that are not compared with a hash; our own has no hash."""
    return [
        line.strip()
        for job in workflow["jobs"].values()
        if "write" in job.get("permissions", {}).values()
        for item in job.get("steps", ())
        for line in item.get("run", "").splitlines()
        if re.search(r"\bpipx|\buvx|\bpip\\?\"? install ", line)
        and "--require-hashes" not in line
        and not re.search(r"pip install --no-deps (--no-build-isolation \.|dist/nightscore-\*\.whl)$", line)
    ]


def floating_runners(text, workflow):
    """Runners whose image changes by itself."""
    return [name for name, job in workflow["jobs"].items() if job.get("runs-on", "").endswith("-latest")]


def identities_for_strangers(text, workflow):
    """Jobs that act as somebody at Google, or write, in a pull request of a fork."""
    if "pull_request" not in workflow["on"]:
        return []

    def guarded(name):
        job = workflow["jobs"][name]
        needs = job.get("needs", [])
        condition = job.get("if", "")
        if "always()" in condition:
            return False
        return (
            "github.event_name == 'push'" in condition
            or "head.repo.full_name == github.repository" in condition
            or any(guarded(other) for other in ([needs] if isinstance(needs, str) else needs))
        )

    return [
        name
        for name, job in workflow["jobs"].items()
        if "write" in {value for key, value in job.get("permissions", {}).items() if key != "pull-requests"}
        and not guarded(name)
    ]


def cancelled_deployments(text, workflow):
    """Jobs of an environment that a later one stops in the middle."""
    return [
        name
        for name, job in workflow["jobs"].items()
        if "environment" in job and job.get("concurrency", {}).get("cancel-in-progress", "false") != "false"
    ]


CHECKOUT = "uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd  # v6.0.2"
SOUND = f"""
on: [pull_request]
permissions: {{contents: read}}
jobs:
  build:
    if: github.event_name == 'push'
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    environment: dev
    concurrency: {{group: dev, cancel-in-progress: false}}
    permissions: {{contents: read, id-token: write}}
    steps:
      - {CHECKOUT}
        with: {{persist-credentials: false}}
      - env: {{TITLE: "${{{{ github.event.pull_request.title }}}}"}}
        run: echo "$TITLE"
"""
POLICIES = [
    (unpinned, "@de0fac2e4500dabe0009e67214ff5f5447ce83dd  # v6.0.2", "@v4"),
    (unpinned, "  # v6.0.2", ""),
    (strangers, "actions/checkout@", "stranger/checkout@"),
    (generous, "permissions: {contents: read}\n", "permissions: write-all\n"),
    (generous, "permissions: {contents: read}\n", ""),
    (dangerous_triggers, "[pull_request]", "[pull_request_target]"),
    (endless, "    timeout-minutes: 5\n", ""),
    (kept_credentials, "persist-credentials: false", "fetch-depth: 0"),
    (secrets, "github.event.pull_request.title", "secrets.TOKEN"),
    (interpolation, 'echo "$TITLE"', 'echo "${{ github.event.pull_request.title }}"'),
    (unhashed, 'echo "$TITLE"', "pip install twine"),
    (unhashed, 'echo "$TITLE"', "pipx run twine"),
    (floating_runners, "ubuntu-24.04", "ubuntu-latest"),
    (identities_for_strangers, "    if: github.event_name == 'push'\n", ""),
    (cancelled_deployments, "cancel-in-progress: false", "cancel-in-progress: true"),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_workflow_keeps_to_the_policies(path):
    text = path.read_text()
    workflow = load(text)
    faults = {policy.__name__: policy(text, workflow) for policy, _, _ in POLICIES}
    assert {name: found for name, found in faults.items() if found} == {}


def test_the_workflows_are_found():
    assert {path.stem for path in FILES} == {"ci", "deploy", "deploy-environment", "models", "release"}


@pytest.mark.parametrize(("policy", "good", "bad"), POLICIES)
def test_every_policy_finds_its_fault(policy, good, bad):
    assert policy(SOUND, load(SOUND)) == []
    broken = SOUND.replace(good, bad)
    assert broken != SOUND
    assert policy(broken, load(broken))


def test_an_action_is_the_same_commit_wherever_it_is_used():
    pins = {}
    for path in FILES:
        for name in uses(load(path.read_text())):
            if not name.startswith("./"):
                action, commit = name.split("@")
                pins.setdefault(action, set()).add(commit)
    assert len(pins) >= 8
    assert {action: commits for action, commits in pins.items() if len(commits) > 1} == {}


def test_the_terraform_that_is_run_is_the_same_everywhere():
    versions = {
        item["with"]["terraform_version"]
        for path in FILES
        for job in load(path.read_text())["jobs"].values()
        for item in job.get("steps", ())
        if item.get("uses", "").startswith("hashicorp/setup-terraform@")
    }
    assert len(versions) == 1


def test_nothing_is_pushed_or_applied_before_it_is_compared_with_what_was_approved():
    steps = load((ROOT / ".github" / "workflows" / "deploy-environment.yml").read_text())["jobs"]["deploy"]["steps"]
    names = [item.get("name") for item in steps]
    wanted = (
        "Plan again",
        "Compare with what was approved",
        "Push the image by its digest, and the wheel",
        "Apply what was approved",
        "Upload the release",
    )
    assert [name for name in names if name in wanted] == list(wanted)


def test_only_one_check_is_needed_and_it_waits_for_every_job():
    jobs = load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert set(jobs["passed"]["needs"]) == set(jobs) - {"passed"}
    assert jobs["passed"]["if"] == "always()"


def test_the_documentation_names_every_variable_that_must_be_set():
    text = "\n".join(path.read_text() for path in FILES)
    wanted = set(re.findall(r"\bvars\.([A-Z_]+)", text))
    assert len(wanted) >= 15
    table = (ROOT / "docs" / "delivery.md").read_text().partition("## Set up once")[2].partition("\n## ")[0]
    assert wanted - set(re.findall(r"`([A-Z_]+)`", table)) == set()


def test_what_the_variables_are_taken_from_is_an_output_of_terraform():
    outputs = set(re.findall(r'^output "(\w+)"', (ROOT / "terraform" / "outputs.tf").read_text(), re.MULTILINE))
    table = (ROOT / "docs" / "delivery.md").read_text().partition("| variable | where |")[2].partition("\n\n")[0]
    named = [row.split("|")[3].strip(" `") for row in table.splitlines() if row.count("|") == 4 and "---" not in row]
    assert len(named) >= 10
    assert {name for name in named if " " not in name} <= outputs
    assert re.search(r'^variable "package"', (ROOT / "terraform" / "variables.tf").read_text(), re.MULTILINE)
