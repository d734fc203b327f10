"""What people read where no outcome is positive yet: figures that are unknown, and no error."""

from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from nightscore.cli.evidence import print_evidence
from nightscore.monitoring.performance import BUCKETS, Cells, compare, rate
from nightscore.promotion_text import proposal_as_markdown
from nightscore.version_comparison import _nights


@pytest.fixture
def evidence():
    """Evidence of a night whose outcomes are all negative."""
    rows, none = np.full((BUCKETS, 2), 10.0), np.zeros((BUCKETS, 2))
    cells = Cells(rows, none, rows * 0.1, rows * 0.01)
    swapped = rate(rows[:, 0], none[:, 0])
    agreement = {"rows": 2000, "psi": 0.01}
    return {
        "pipeline": "cards",
        "champion": "cards/1",
        "challenger": "cards/2",
        "nights": [{"partition": "2026-11-19", "outcomes": {"rows": 0}, **agreement}],
        "accumulated": {"figures": agreement, "slices": {}},
        "left_out": [],
        "outcomes": {
            "rows": 2000,
            "positives": 0,
            **compare(cells, cells, 0.95),
            "swapped_in": swapped,
            "swapped_out": swapped,
        },
    }


def test_a_comparison_says_that_it_is_unknown(evidence):
    rows = {row[0]: row[1:] for row in _nights(evidence).rows}
    assert rows["AUC, challenger minus champion"] == ("unknown", "")
    assert rows["Brier score, challenger minus champion"] == ("+0.0000", "")


def test_a_proposal_says_that_it_is_unknown(evidence):
    manifest = SimpleNamespace(
        estimator="", format="", created_at="", created_by="", description="", training_data="", version=2, name="cards"
    )
    proposal = SimpleNamespace(
        seen=SimpleNamespace(name="cards", alias="champion", version=1),
        version=SimpleNamespace(label="cards/2", manifest=manifest, digest="d"),
        judged=(SimpleNamespace(pipeline="cards", evidence=evidence, findings=(), digest="e"),),
    )
    lines = proposal_as_markdown(proposal, "kept", "why").splitlines()
    assert "| AUC | unknown | unknown | unknown |" in lines
    assert "| Brier score | 0.0100 | 0.0100 | +0.0000 |" in lines


def test_the_terminal_says_that_it_is_unknown(evidence, capsys):
    print_evidence(Console(width=120), evidence, [])
    [auc] = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("AUC ")]
    assert auc == ["AUC", "unknown", "unknown", "unknown"]
