"""The policy: may a challenger become the champion, by the evidence and the rules of the spec? Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from nightscore.errors import counted
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
    nights, left_out, figures = len(evidence["nights"]), evidence["left_out"], evidence["accumulated"]["figures"]
    found = counted(nights, "night")
    if left_out:
        found += f", and {len(left_out)} on which the challenger was left out"
    yield Finding("min_nights", nights >= policy.min_nights, found, f"at least {policy.min_nights}")
    if policy.max_flips is not None:
        yield _flips(policy.max_flips, evidence)
    if policy.max_auc_loss is not None:
        yield _auc_loss(policy.max_auc_loss, policy.confidence, evidence["outcomes"])
    if policy.max_psi is not None:
        index = figures.get("psi")
        found = "no rows" if index is None else f"{index:.4g}"
        yield Finding("max_psi", index is not None and index <= policy.max_psi, found, f"at most {policy.max_psi:.4g}")


def _flips(most: float, evidence: Json) -> Finding:
    task, figures = evidence["task"], evidence["accumulated"]["figures"]
    share, others = figures.get("flip_share"), evidence["other_threshold"]
    if share is not None:
        found = f"{figures['flips']:,} of {figures['rows']:,} rows, {share:.3%}"
    elif not figures["rows"]:
        found = "no rows"
    elif others:
        found = f"{others} of {counted(len(evidence['nights']), 'night')} had another threshold"
    elif task == "binary":
        found = "the spec has no predictions.threshold"
    else:
        found = f"a {task} model decides nothing that could flip"
    return Finding("max_flips", share is not None and share <= most, found, f"at most {most:.3%}")


def _auc_loss(most: float, confidence: float, outcomes: Json) -> Finding:
    wanted = f"not lower by more than {most:.4g}, with {_share(confidence)} confidence"
    passed = False
    if not outcomes["rows"]:
        found = outcomes["reason"]
    elif outcomes["one_sided_confidence"] != confidence:
        found = f"the evidence was gathered for {_share(outcomes['one_sided_confidence'])} confidence; gather it again"
    elif outcomes["difference"]["auc"]["least"] is None:
        found = (
            f"{outcomes['positives']:,} of {outcomes['rows']:,} rows positive: too few outcomes to tell how sure it is"
        )
    else:
        auc = outcomes["difference"]["auc"]
        passed = auc["least"] >= -most
        found = f"{auc['value']:+.4f} on {outcomes['rows']:,} rows, at least {auc['least']:+.4f}"
    return Finding("max_auc_loss", passed, found, wanted)


def _share(share: float) -> str:
    """Return a share as a spec writes it.

    >>> _share(0.95), _share(0.995)
    ('95%', '99.5%')
    """
    return f"{share * 100:.6g}%"
