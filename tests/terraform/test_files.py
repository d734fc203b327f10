"""The files themselves: formatted, valid, tested, explained, and protected where a plan does not say so."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from terraform.conftest import ROOT, Terraform
from terraform.plan import Plan

FILES = sorted((ROOT / "terraform").glob("**/*.tf"))
FILES = [path for path in FILES if ".terraform" not in path.parts]
README = ROOT / "terraform/README.md"

# With these goes what cannot be had back, or what everything else names.
IRREPLACEABLE = {
    "google_bigquery_dataset",
    "google_bigquery_table",
    "google_composer_environment",
    "google_kms_crypto_key",
    "google_kms_key_ring",
    "google_logging_project_bucket_config",
    "google_secret_manager_secret",
    "google_service_account",
    "google_storage_bucket",
}


def blocks(text: str, kind: str) -> Iterator[tuple[list[str], str]]:
    """Yield the labels and the body of every block of a kind at the left margin."""
    for found in re.finditer(rf'^{kind} ((?:"[^"]+" ?)+)\{{\n(.*?)^\}}', text, re.MULTILINE | re.DOTALL):
        yield re.findall(r'"([^"]+)"', found[1]), found[2]


def unprotected(text: str) -> list[str]:
    """Return the resources that should not be deleted by a plan, and could be."""
    return [
        ".".join(labels)
        for labels, body in blocks(text, "resource")
        if labels[0] in IRREPLACEABLE and not re.search(r"lifecycle \{[^}]*prevent_destroy\s*= true", body)
    ]


def silent(text: str) -> list[str]:
    """Return the variables that do not say in words what they are, or do not refuse what is wrong."""
    found = []
    for [name], body in blocks(text, "variable"):
        if not re.search(r'description\s*= "[^"]{20,}\."', body):
            found.append(f"{name} is not described in a sentence")
        if not re.search(r"type\s*= bool", body) and 'error_message = "' not in body:
            found.append(f"{name} refuses nothing")
        found += [
            f"{name}: {words!r} is no sentence"
            for words in re.findall(r'error_message = "([^"]*)"', body)
            if not re.fullmatch(r"[A-Z].{15,}\.(6|1-build\.0)?\.?", words)
        ]
    return found


def test_files_were_found():
    assert len(FILES) > 20


def test_what_cannot_be_had_back_is_protected():
    text = "\n".join(path.read_text() for path in FILES)

    assert unprotected(text) == []
    assert {labels[0] for labels, _ in blocks(text, "resource")} >= IRREPLACEABLE
    assert unprotected(re.sub(r"prevent_destroy\s*= true", "", text))


def test_variables_speak():
    text = (ROOT / "terraform/variables.tf").read_text()

    assert silent(text) == []
    assert len(list(blocks(text, "variable"))) > 15
    assert silent('variable "a" {\n  type = string\n}\n') == ["a is not described in a sentence", "a refuses nothing"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "terraform/modules").glob("*/variables.tf")), ids=lambda path: path.parent.name
)
def test_modules_say_what_they_take(path: Path):
    undescribed = [
        name
        for [name], body in blocks(path.read_text(), "variable")
        if not re.search(r'description\s*= ".{10,}\."', body)
    ]

    assert undescribed == []


def test_every_validation_has_a_run_that_it_refuses():
    text = (ROOT / "terraform/variables.tf").read_text()
    wanted = {name: body.count("validation {") for [name], body in blocks(text, "variable")}
    runs = (ROOT / "terraform/tests/variables.tftest.hcl").read_text()
    found = {name: runs.count(f"expect_failures = [var.{name}]") for name in wanted}

    assert sum(wanted.values()) > 30
    assert {name for name, count in wanted.items() if found[name] < count} == set()


def test_no_secret_no_chance_no_beta():
    text = "\n".join(path.read_text() for path in FILES)

    for word in (
        "random_",
        "google-beta",
        "google_service_account_key",
        "secret_data",
        "local-exec",
        "timestamp()",
        "null_resource",
    ):
        assert word not in text
    assert all('version = "~> 8.7"' in path.read_text() for path in FILES if path.name == "versions.tf")


def test_environments_are_files_of_variables():
    known = {name for [name], _ in blocks((ROOT / "terraform/variables.tf").read_text(), "variable")}
    for path in (ROOT / "terraform/environments").glob("*.tfvars"):
        assert set(re.findall(r"^([a-z_]+)\s*=", path.read_text(), re.MULTILINE)) <= known


def test_the_root_is_formatted_valid_and_passes_its_tests(terraform: Terraform):
    terraform.run("fmt", "-check", "-recursive", "-diff", str(ROOT / "terraform"))
    validated = json.loads(terraform.run("validate", "-json").stdout)
    done = terraform.run("test", "-no-color")

    assert (validated["valid"], validated["diagnostics"]) == (True, [])
    assert re.search(r"Success! \d{2,} passed, 0 failed", done.stdout)


def test_the_example_of_the_readme_can_be_planned(terraform: Terraform, plans: dict[str, Plan]):
    [example] = re.findall(r"```hcl\n(.*?)```", README.read_text(), re.DOTALL)
    variables = terraform.root / "example.tfvars"
    variables.write_text(example)

    found = terraform.plan(variables)

    assert found.outputs["composer_environment"] is None if "composer_environment" in found.outputs else True
    assert {item.type for item in found.resources()} < {item.type for item in plans["prod"].resources()} | {
        "google_bigquery_dataset_iam_binding"
    }
    assert not found.resources("google_composer_environment")


def test_the_readme_names_every_file_and_variable():
    text = README.read_text()
    names = {path.name for path in FILES if path.parent == ROOT / "terraform"} | {
        path.parent.name for path in FILES if "modules" in path.parts
    }
    variables = {name for [name], _ in blocks((ROOT / "terraform/variables.tf").read_text(), "variable")}

    assert {name for name in names | variables if f"`{name}`" not in text} == set()
