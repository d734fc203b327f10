"""A proposed promotion for whoever must approve it, as Markdown."""

from collections.abc import Iterator

from nightscore.markdown import plain
from nightscore.monitoring.text import figure, interval
from nightscore.objects import Json
from nightscore.promotion import Judged, Proposal

MEASURES = {"auc": "AUC", "gini": "Gini", "ks": "KS", "brier": "Brier score"}
MOST_LEFT_OUT = 5


def proposal_as_markdown(proposal: Proposal, kept: str, reason: str) -> str:
    """Return what an approver needs to decide: the versions, every rule, the figures of every pipeline, the digests.

    Args:
        proposal: what is proposed.
        kept: the proposal's digest.
        reason: why it is proposed.
    """
    return "\n".join(_lines(proposal, kept, reason))


def _lines(proposal: Proposal, kept: str, reason: str) -> Iterator[str]:
    seen, manifest = proposal.seen, proposal.version.manifest
    before = f", which is {seen.name}/{seen.version} now" if seen.version else ""
    yield f"**{proposal.version.label}** shall become **{seen.name}@{seen.alias}**{before}."
    yield ""
    yield f"* why: {plain(reason)}"
    made = f"{plain(manifest.estimator)} ({manifest.format})"
    yield f"* what: {made}, registered {manifest.created_at} by {plain(manifest.created_by)}"
    if manifest.description:
        yield f"* description: {plain(manifest.description)}"
    if manifest.training_data:
        yield f"* fitted on: {plain(manifest.training_data)}"
    yield f"* model digest: `{proposal.version.digest}`"
    yield f"* proposal digest: `{kept}`"
    if not proposal.judged:
        yield ""
        yield "No pipeline that uses it has a policy, or there is no champion yet: there is no evidence."
    for item in proposal.judged:
        yield from _pipeline(item)


def _pipeline(item: Judged) -> Iterator[str]:
    evidence = item.evidence
    yield ""
    yield f"### {item.pipeline}"
    yield ""
    yield "| rule | | wanted | found |"
    yield "|---|---|---|---|"
    for finding in item.findings:
        met = "met" if finding.passed else "**not met**"
        yield f"| {finding.rule} | {met} | {plain(finding.wanted)} | {plain(finding.found)} |"
    yield ""
    yield from _agreement(evidence)
    yield from _outcomes(evidence["outcomes"])
    for left_out in evidence["left_out"][-MOST_LEFT_OUT:]:
        yield f"* left out on {left_out['partition']}: {plain(left_out['why'])}"
    yield f"* evidence digest: `{item.digest}`"


def _agreement(evidence: Json) -> Iterator[str]:
    figures, nights = evidence["accumulated"]["figures"], evidence["nights"]
    if not nights:
        return
    yield f"* {len(nights)} nights, {nights[0]['partition']} to {nights[-1]['partition']}, {figures['rows']:,} rows"
    for name, words in (("correlation", "correlation"), ("psi", "PSI between the two")):
        if figures.get(name) is not None:
            yield f"* {words}: {figures[name]:.4f}"
    if figures.get("flips") is not None:
        ways = ""
        if figures.get("swapped_in") is not None:
            only = (figures["swapped_in"], figures["swapped_out"])
            ways = f": {only[0]:,} that only the challenger flags, {only[1]:,} only the champion"
        yield f"* {figures['flips']:,} decisions flip ({figures['flip_share']:.3%}){ways}"


def _outcomes(outcomes: Json) -> Iterator[str]:
    if not outcomes["rows"]:
        yield f"* outcomes: {plain(outcomes['reason'])}"
        return
    yield f"* {outcomes['rows']:,} rows with a known outcome, {outcomes['positives']:,} positive"
    yield ""
    yield "| | champion | challenger | difference (95 % interval) |"
    yield "|---|---|---|---|"
    for name, words in MEASURES.items():
        champion, challenger, difference = (outcomes[side][name] for side in ("champion", "challenger", "difference"))
        bounds = interval(difference, " to ", "+.4f")
        apart = figure(difference["value"], "+.4f") + (f" ({bounds})" if bounds else "")
        yield f"| {words} | {figure(champion['value'])} | {figure(challenger['value'])} | {apart} |"
    yield ""
