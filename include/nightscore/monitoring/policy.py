"""The policy: may a challenger become the champion, by the evidence and the rules of the spec? Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from nightscore.objects import Json
from nightscore.spec import Promotion


@dataclass(frozen=True)
class Finding:
    """One rule of the policy, and what the evidence says of it.

    Attributes:
        rule: its key in `promotion`.
        passed: whether it is met. A rule about something that is not known is not met.
        found: what the evidence holds, for people.
        wanted: what the rule asks for, for people.
    """

    rule: str
    passed: bool
    found: str
    wanted: str


def judge(policy: Promotion, evidence: Json) -> list[Finding]:
    """Return a finding for every rule that the policy gives; a challenger may be promoted when all passed.

    Args:
        policy: `promotion` of the spec.
        evidence: what `nightscore.monitoring.evidence.gather` returned, with the same policy in its spec.
    """
    return list(_findings(policy, evidence))


def _findings(policy: Promotion, evidence: Json) -> Iterator[Finding]:
    nights, figures = len(evidence["nights"]), evidence["accumulated"]["figures"]
    left_out = len(evidence["left_out"])
    yield Finding(
        "min_nights",
        nights >= policy.min_nights,
        f"{nights} night(s)" + (f", and {left_out} on which the challenger was left out" if left_out else ""),
        f"at least {policy.min_nights}",
    )
    if policy.max_flips is not None:
        share = figures.get("flip_share")
        yield Finding(
            "max_flips",
            share is not None and share <= policy.max_flips,
            f"{figures['flips']:,} of {figures['rows']:,} rows, {share:.3%}"
            if share is not None
            else _no_flips(evidence),
            f"at most {policy.max_flips:.4g} of the rows"
            if policy.max_flips < 0.0001
            else f"at most {policy.max_flips:.2%}",
        )
    if policy.max_auc_loss is not None:
        yield _auc_finding(policy, policy.max_auc_loss, evidence)
    if policy.max_psi is not None:
        index = figures.get("psi")
        found = "no rows" if index is None else f"{index:.4g}"
        yield Finding("max_psi", index is not None and index <= policy.max_psi, found, f"at most {policy.max_psi:.4g}")


def _auc_finding(policy: Promotion, loss: float, evidence: Json) -> Finding:
    wanted = f"not lower by more than {loss:.4g}, with {policy.confidence:.4g} confidence"
    outcomes = evidence["outcomes"]
    if not outcomes["rows"]:
        return Finding("max_auc_loss", passed=False, found=outcomes["reason"], wanted=wanted)
    auc = outcomes["difference"]["auc"]
    least = auc["least"]
    if least is None:
        return Finding("max_auc_loss", False, "too few outcomes to tell how sure the difference is", wanted)
    if outcomes["one_sided_confidence"] != policy.confidence:
        found = f"the evidence was gathered for a confidence of {outcomes['one_sided_confidence']:.4g}; gather it again"
        return Finding("max_auc_loss", False, found, wanted)
    found = f"{auc['value']:+.4f} on {outcomes['rows']:,} rows, at least {least:+.4f}"
    return Finding("max_auc_loss", least >= -loss, found, wanted)


def _no_flips(evidence: Json) -> str:
    if not evidence["accumulated"]["figures"]["rows"]:
        return "no rows"
    return (
        "not every night's spec gave predictions.threshold" if evidence["task"] == "binary" else "no decisions to flip"
    )
