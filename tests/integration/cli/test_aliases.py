"""`nightscore models promote, rollback, history, compare, sign, verify, check` as people run them."""

import json
import uuid

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

ROWS = pd.DataFrame({"age": np.arange(20, 60), "limit_bal": np.linspace(0, 1, 40)})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Two models, a sample, and a folder of no pipelines."""
    for name, strength in (("one", 1.0), ("two", 0.01)):
        skops_io.dump(LogisticRegression(C=strength).fit(ROWS, ROWS["age"] > 40), tmp_path / f"{name}.skops")
    ROWS.to_parquet(tmp_path / "sample.parquet")
    (tmp_path / "pipelines").mkdir()
    monkeypatch.setenv("NIGHTSCORE_PIPELINES_DIR", str(tmp_path / "pipelines"))
    return tmp_path


@pytest.fixture
def model(nightscore):
    """A model with two versions: the first is the champion."""
    name = f"m{uuid.uuid4().hex[:12]}"
    for file, alias, auc in (("one", "champion", "0.75"), ("two", "challenger", "0.79")):
        arguments = ("--sample", "sample.parquet", "--alias", alias, "--metric", f"auc={auc}", "--owner", "risk-ml")
        done = nightscore("models", "register", name, f"{file}.skops", *arguments, "--git-revision", "abc123")
        assert done.returncode == 0, done.stderr
    return name


def flat(text):
    return " ".join(text.split())


def test_an_alias_is_promoted_rolled_back_and_its_history_told(nightscore, model):
    done = nightscore("models", "promote", model, "challenger", "--reason", "better on October")
    assert (done.returncode, flat(done.stdout)) == (0, f"{model}@champion is now {model}/2; it was {model}/1.")
    done = nightscore("models", "rollback", model, "--reason", "complaints")
    assert (done.returncode, flat(done.stdout)) == (0, f"{model}@champion is now {model}/1; it was {model}/2.")
    done = nightscore("models", "rollback", model, "--reason", "more complaints")
    assert done.returncode == 2
    assert f"{model}@champion points to 1 and has replaced no version." in flat(done.stderr)

    moves = json.loads(nightscore("models", "history", model, "--alias", "champion", "--json").stdout)
    assert [(item["from"], item["to"], item["kind"], item["reason"]) for item in moves] == [
        (None, 1, "register", "registered"),
        (1, 2, "promote", "better on October"),
        (2, 1, "rollback", "complaints"),
    ]
    shown = nightscore("models", "history", model)
    assert "better on October" in shown.stdout
    assert "challenger" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("promote", "{name}", "7", "--reason", "x"), "The model {name} has no version 7; it has 1, 2."),
        (("promote", "{name}", "champoin", "--reason", "x"), "no alias 'champoin'. Did you mean"),
        (("promote", "{name}", "2", "--reason", ""), "A promotion needs a reason: --reason WHY."),
        (("promote", "{name}", "2", "--alias", "A", "--reason", "x"), "'A' is not an alias"),
        (
            ("rollback", "{name}", "--alias", "champoin", "--reason", "x"),
            "no alias 'champoin'. Did you mean `champion`?",
        ),
        (("rollback", "gone{name}", "--reason", "x"), "There is no model 'gone{name}'"),
        (("history", "gone{name}"), "There is no model 'gone{name}'"),
        (("compare", "{name}", "1", "3"), "has no version 3"),
        (("verify", "gone{name}"), "There is no model 'gone{name}'"),
        (("sign", "{name}"), "Give either --key or --keyless."),
    ],
)
def test_what_cannot_be_done_is_said(nightscore, model, arguments, words):
    done = nightscore("models", *(argument.format(name=model) for argument in arguments))
    assert done.returncode == 2
    assert words.format(name=model) in flat(done.stderr)


def test_two_versions_beside_each_other(nightscore, model):
    done = nightscore("models", "compare", model, "champion", "2")
    assert done.returncode == 0
    lines = [flat(line) for line in done.stdout.splitlines()]
    assert "auc 0.75 0.79 +0.04" in lines
    found = json.loads(nightscore("models", "compare", model, "1", "2", "--json").stdout)
    assert (found["first"]["version"], found["second"]["version"], found["evidence"]) == (1, 2, [])


def test_a_card_as_markdown(nightscore, model):
    done = nightscore("models", "show", f"{model}@2", "--markdown")
    lines = done.stdout.splitlines()
    assert lines[0] == f"# {model}/2"
    assert "| owner | risk-ml |" in lines
    assert "| git revision | abc123 |" in lines
    assert any(line.startswith("| tried on | 40 rows; predicts the same bits as the file's own") for line in lines)
    assert "## inputs" in lines
    assert any(line.startswith(r"| limit\_bal | double | no | ") for line in lines)


def test_a_signed_version_loads_where_signatures_are_required(nightscore, model, folder):
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "risk.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    signers = folder / "signers"
    signers.mkdir()
    (signers / "risk.pem").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    trusting = {"NIGHTSCORE_TRUSTED_SIGNERS": str(signers)}
    refused = nightscore("models", "promote", model, "2", "--reason", "x", **trusting)
    assert refused.returncode == 2
    assert f"{model}/2 needs a valid signature by one of risk. It has none." in flat(refused.stderr)
    done = nightscore("models", "sign", f"{model}@2", "--key", "risk.key", **trusting)
    assert flat(done.stdout).startswith(f"Signed {model}/2: gs://")
    assert nightscore("models", "promote", model, "2", "--reason", "x", **trusting).returncode == 0
    found = nightscore("models", "verify", model, "--json", **trusting)
    assert found.returncode == 1
    assert [bool(item["faults"]) for item in json.loads(found.stdout)] == [True, False, False, False]


def test_what_was_registered_is_verified(nightscore, model):
    done = nightscore("models", "verify", model)
    assert done.returncode == 0
    assert [flat(line).split()[0] for line in done.stdout.splitlines() if line.strip().startswith(model)] == [
        f"{model}/1",
        f"{model}/2",
        f"{model}@challenger",
        f"{model}@champion",
    ]


def test_a_file_is_checked_and_not_stored(nightscore, folder, model):
    done = nightscore("models", "check", "one.skops", "--sample", "sample.parquet", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["file"], found["format"], found["task"]) == ("one.skops", "sklearn-skops", "binary")
    assert found["agreement"]["largest"] == 0
    assert found["rows_per_second"] > 1000
    scored = ROWS.assign(score=LogisticRegression(C=1.0).fit(ROWS, ROWS["age"] > 40).predict_proba(ROWS)[:, 1])
    scored.to_parquet(folder / "scored.parquet")
    arguments = ("--sample", "scored.parquet", "--expected", "score")
    done = nightscore("models", "check", "one.skops", *arguments, "--markdown")
    assert "predicts the same bits as the sample's score" in done.stdout
    done = nightscore("models", "check", "two.skops", *arguments)
    assert done.returncode == 2
    assert "two.skops differ from the sample's score by up to" in flat(done.stderr)
    assert nightscore("models", "history", model, "--json").stdout.count('"to"') == 2


def test_facts_come_from_a_file_and_options_say_more(nightscore, folder):
    name = f"m{uuid.uuid4().hex[:12]}"
    (folder / "facts.yaml").write_text(
        "owner: risk-ml\ndescription: The second.\nmetrics: {auc: 0.7, ks: 0.3}\ntraining_data: cards of October\n"
    )
    arguments = (
        "models",
        "register",
        name,
        "one.skops",
        "--sample",
        "sample.parquet",
        "--facts",
        "facts.yaml",
        "--json",
    )
    done = nightscore(*arguments, "--metric", "auc=0.71", "--owner", "cards")
    found = json.loads(done.stdout)
    assert (found["owner"], found["description"]) == ("cards", "The second.")
    assert found["metrics"] == {"auc": 0.71, "ks": 0.3}
    assert found["training_data"] == "cards of October"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ownr: risk", "The facts facts.yaml: ownr: Did you mean `owner`?"),
        ("metrics: {auc: high}", "The facts facts.yaml: metrics: Input should be a valid number"),
        ("metrics: {auc: .nan}", "The facts facts.yaml: metrics: Input should be a finite number"),
        ("classes: good", "The facts facts.yaml: classes: Input should be a valid tuple"),
        ("- a", "The facts facts.yaml: the file: "),
        ("{", "The facts facts.yaml cannot be read: "),
        (None, "The facts facts.yaml cannot be read: "),
    ],
)
def test_facts_that_are_none(nightscore, folder, text, words):
    if text is not None:
        (folder / "facts.yaml").write_text(text)
    done = nightscore("models", "check", "one.skops", "--sample", "sample.parquet", "--facts", "facts.yaml")
    assert done.returncode == 2
    assert words in flat(done.stderr)


def test_text_that_looks_like_markup_is_shown_as_it_is(nightscore, model):
    done = nightscore("models", "promote", model, "2", "--reason", "see [/tmp/x] and [bold]this[/bold]")
    assert done.returncode == 0
    done = nightscore("models", "history", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert "see [/tmp/x] and [bold]this[/bold]" in flat(done.stdout)


def test_a_rollback_goes_further_back_and_never_forth(nightscore, model):
    nightscore("models", "register", model, "one.skops", "--sample", "sample.parquet")
    for version in ("2", "3", "1"):
        assert nightscore("models", "promote", model, version, "--reason", "x").returncode == 0
    again = nightscore("models", "promote", model, "1", "--reason", "x")
    assert (again.returncode, f"{model}@champion points to {model}/1 already." in flat(again.stderr)) == (2, True)
    told = [nightscore("models", "rollback", model, "--reason", "x", "--json").stdout for _ in range(3)]
    assert [json.loads(text)["to"] for text in told] == [3, 2, 1]
    assert nightscore("models", "rollback", model, "--reason", "x").returncode == 2
