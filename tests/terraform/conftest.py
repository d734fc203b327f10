"""Terraform on a copy of its root: planned once for each environment, shared by everything that looks at the plan.

`make test` asks no registry. The provider is the one that TF_REATTACH_PROVIDERS names, or the real one that `make
terraform` has fetched into `terraform/.terraform`. The real one plans with credentials alone, so plans that
`terraform show -json` wrote can be handed in instead: TERRAFORM_PLANS names the folder of `dev.json` and `prod.json`.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from terraform.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
PROVIDER = "registry.terraform.io/hashicorp/google"
ENVIRONMENTS = ("dev", "prod")


class Terraform:
    """Terraform in a copy of the root whose state is a local file."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "terraform"
        ignored = shutil.ignore_patterns("*.tfstate*", "*.tfplan", "__pycache__")
        shutil.copytree(ROOT / "terraform", self.root, symlinks=True, ignore=ignored)
        shutil.copytree(ROOT / "include/nightscore/schemas", folder / "include/nightscore/schemas")
        (self.root / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
        self.run("init", "-input=false")

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the root."""
        done = subprocess.run(
            ["terraform", f"-chdir={self.root}", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "NO_COLOR": "1"},
        )
        if check:
            assert done.returncode == 0, (
                f"terraform {' '.join(arguments)}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done

    def plan(self, variables: Path) -> Plan:
        """Plan an empty project with a file of variables."""
        out = self.root / f"{variables.stem}.tfplan"
        self.run("plan", "-input=false", "-lock=false", f"-var-file={variables}", "-var=package=0.1.0", f"-out={out}")
        return Plan(json.loads(self.run("show", "-json", str(out)).stdout))


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Terraform with a provider."""
    if not shutil.which("terraform"):
        pytest.skip("Not checked: there is no `terraform` on this machine, and all of tests/terraform needs it.")
    if PROVIDER not in os.environ.get("TF_REATTACH_PROVIDERS", "") and not _has_real_provider():
        pytest.skip(
            "Not checked: `terraform` has no google provider here. `make terraform` fetches it; or "
            "TF_REATTACH_PROVIDERS names one that runs."
        )
    return Terraform(tmp_path_factory.mktemp("terraform"))


def _has_real_provider() -> bool:
    return (ROOT / "terraform/.terraform/providers" / PROVIDER).is_dir()


@pytest.fixture(scope="session")
def plans(request: pytest.FixtureRequest) -> dict[str, Plan]:
    """The plan of every environment, of an empty project."""
    given = os.environ.get("TERRAFORM_PLANS")
    if given:
        return {name: Plan(json.loads((Path(given) / f"{name}.json").read_text())) for name in ENVIRONMENTS}
    terraform = request.getfixturevalue("terraform")
    if PROVIDER not in os.environ.get("TF_REATTACH_PROVIDERS", ""):
        pytest.skip("Not checked: the real provider plans with credentials alone. Hand plans in by TERRAFORM_PLANS.")
    return {name: terraform.plan(terraform.root / f"environments/{name}.tfvars") for name in ENVIRONMENTS}


@pytest.fixture(params=ENVIRONMENTS)
def plan(request: pytest.FixtureRequest, plans: dict[str, Plan]) -> Iterator[Plan]:
    """The plan of each environment in turn."""
    return plans[request.param]
