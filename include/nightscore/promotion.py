"""Promoting a version: the evidence of every pipeline that uses the model, judged by its policy, kept with the move.

    registry/models/<name>/evidence/<digest>.json     created once
    registry/models/<name>/proposals/<digest>.json    created once

An alias that points to nothing yet has no champion to compare with, and moves without evidence. So does an alias that
no pipeline publishes; a pipeline without a `promotion` asks for nothing.
"""

import datetime as dt
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nightscore.arguments import parse_model, require_name
from nightscore.errors import ConfigurationError, GateRefusedError, NightscoreError, listed, shorten
from nightscore.monitoring.evidence import gather, shared_nights
from nightscore.monitoring.evidence_table import write_accumulated
from nightscore.monitoring.policy import Finding, judge
from nightscore.objects import Json, to_json
from nightscore.registry.aliases import Alias, AliasMovedError
from nightscore.registry.manifest import digest
from nightscore.registry.store import ROOT, DigestError, Registry, Version
from nightscore.run import Services, utc_now
from nightscore.settings import user_name
from nightscore.spec import Promotion, Spec
from nightscore.specs import iter_specs

log = logging.getLogger(__name__)

TIMEOUT = dt.timedelta(hours=24)


class PromotionRefusedError(GateRefusedError):
    """A pipeline's policy does not allow the promotion; no alias was moved."""

    def __init__(self, proposal: "Proposal") -> None:
        shown = "\n".join(f"  - {line}" for line in proposal.lines() if not line.endswith(": met"))
        super().__init__(
            f"{proposal.version.label} may not become {proposal.seen.name}@{proposal.seen.alias} yet:\n{shown}\n"
            "Wait for more evidence, or promote it with --force and a reason."
        )


class ReasonError(ConfigurationError):
    """A promotion needs a reason."""


class PolicyError(ConfigurationError):
    """An alias that a policy stands before would be moved without evidence."""


class NoPipelinesError(ConfigurationError):
    """There is no folder of pipelines to ask for their policies."""


class ApproversError(ConfigurationError):
    """The pipelines that use a model have no approver in common, or somebody else has approved."""


@dataclass(frozen=True)
class Judged:
    """One pipeline's evidence for a version, and what its policy says of it."""

    spec: Spec
    policy: Promotion
    evidence: Json
    digest: str
    findings: tuple[Finding, ...]

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return self.spec.name

    @property
    def passed(self) -> bool:
        """Whether every rule is met."""
        return all(finding.passed for finding in self.findings)


@dataclass(frozen=True)
class Proposal:
    """A version that may become what an alias points to.

    Attributes:
        seen: the alias as it was when the evidence was gathered.
        version: where it may point to.
        judged: what each pipeline's policy says, of those that have one.
    """

    seen: Alias
    version: Version
    judged: tuple[Judged, ...]

    @property
    def passed(self) -> bool:
        """Whether every policy is met."""
        return all(item.passed for item in self.judged)

    @property
    def approvers(self) -> tuple[str, ...] | None:
        """Who may approve, whom every policy that names anybody names; None where none names anybody.

        Raises:
            ApproversError: they have nobody in common.
        """
        named = [item for item in self.judged if item.policy.approvers]
        if not named:
            return None
        common = [who for who in named[0].policy.approvers if all(who in item.policy.approvers for item in named)]
        if not common:
            asked = "; ".join(f"{item.pipeline}: {listed(item.policy.approvers)}" for item in named)
            raise ApproversError(f"No approver of {self.seen.name} is named by every pipeline that uses it: {asked}.")
        return tuple(common)

    @property
    def timeout(self) -> dt.timedelta:
        """How long an answer is waited for: the shortest time that a policy names."""
        return min((item.policy.timeout for item in self.judged), default=TIMEOUT)

    def lines(self) -> list[str]:
        """Return a line for every rule of every policy."""
        return [
            f"{item.pipeline}: {finding.rule}: {finding.found}; wanted: {finding.wanted}: "
            f"{'met' if finding.passed else 'NOT met'}"
            for item in self.judged
            for finding in item.findings
        ]


def propose(services: Services, folder: Path, name: str, alias: str, version: str, *, force: bool = False) -> Proposal:
    """Gather the evidence for a promotion and judge it; nothing is changed.

    Args:
        services: the deployment.
        folder: where the specs are.
        name: the model.
        alias: the alias that would move.
        version: a number, or the alias of the version that it would point to.
        force: what keeps a policy from being judged is a finding, and no error.

    Raises:
        ModelNotFoundError: there is no such version.
        DigestError: it is not what was registered.
        NoPipelinesError: there is no folder of specs, so that nobody knows any policy.
        SpecError: a pipeline's spec cannot be read, so that nobody knows its policy.
    """
    registry = services.registry
    registry.require_model(name)
    seen = registry.alias(name, alias)
    chosen = registry.resolve(parse_model(f"{name}@{version}"))
    registry.require_whole(chosen)
    if seen.version is None or seen.version == chosen.manifest.version:
        return Proposal(seen, chosen, ())
    if not folder.is_dir() and not force:
        raise NoPipelinesError(
            f"There is no folder {folder} of pipelines, whose policies would be asked. Set NIGHTSCORE_PIPELINES_DIR, "
            "or promote with --force and a reason."
        )
    judged = [
        _judge(services, spec, spec.promotion, seen, chosen, force=force)
        for spec in _using(folder, name, alias, skip_broken=force)
        if spec.promotion is not None
    ]
    return Proposal(seen, chosen, tuple(judged))


def _judge(
    services: Services, spec: Spec, policy: Promotion, seen: Alias, challenger: Version, *, force: bool
) -> Judged:
    try:
        champion = services.registry.load_manifest(seen.name, int(seen.version or 0), str(seen.digest))
        evidence = gather(services, spec, champion, challenger)
        findings = tuple(judge(policy, evidence))
    except NightscoreError as error:
        if not force:
            raise
        champion_label = f"{seen.name}/{seen.version}"
        evidence = {"pipeline": spec.name, "champion": champion_label, "challenger": challenger.label, "nights": []}
        findings = (Finding("evidence", passed=False, found=f"not gathered: {shorten(error, 300)}", wanted="evidence"),)
    return Judged(spec, policy, evidence, digest(to_json(evidence)), findings)


def _using(folder: Path, name: str, alias: str, *, skip_broken: bool = False) -> Iterator[Spec]:
    """Yield the specs of the pipelines that publish what an alias of a model points to."""
    for spec in iter_specs(folder):
        if not isinstance(spec, Spec):
            if skip_broken:
                continue
            raise spec
        model = spec.model
        if model.name == name and model.source is None and model.version is None and model.alias_name == alias:
            yield spec


def require_no_policy(registry: Registry, folder: Path, name: str, alias: str) -> None:
    """Check that an alias may move without evidence, as a registration moves it.

    Raises:
        PolicyError: a pipeline publishes what it points to, and its spec has a policy.
    """
    if registry.alias(name, alias).version is None:
        return
    for spec in _using(folder, name, alias):
        if spec.promotion is not None:
            raise PolicyError(
                f"{name}@{alias} is what the pipeline {spec.name} publishes, whose spec has a promotion. Register it "
                f"under another alias, like challenger, and then: `nightscore models promote {name} VERSION`."
            )


def keep(services: Services, proposal: Proposal, *, by: str | None = None, forced: bool = False) -> str:
    """Keep a proposal and its evidence for good, also in the operations table; return the proposal's digest.

    Args:
        services: the deployment.
        proposal: what is proposed.
        by: who proposes; by default the user of this process.
        forced: it is carried out whatever the policies say.

    Raises:
        ApproversError: the pipelines have no approver in common.
    """
    registry, name = services.registry, proposal.seen.name
    for item in proposal.judged:
        registry.bucket.create(f"{ROOT}{name}/evidence/{item.digest}.json", to_json(item.evidence))
        _write_table(services, item)
    content = to_json(
        {
            "model": name,
            "alias": proposal.seen.alias,
            "generation": proposal.seen.generation,
            "from": proposal.seen.version,
            "to": proposal.version.manifest.version,
            "digest": proposal.version.digest,
            "judged": [
                {
                    "pipeline": item.pipeline,
                    "evidence": item.digest,
                    "nights": len(item.evidence["nights"]),
                    "findings": [asdict(finding) for finding in item.findings],
                }
                for item in proposal.judged
            ],
            "passed": proposal.passed,
            "approvers": None if forced else proposal.approvers,
            "forced": forced,
            "proposed_at": utc_now().isoformat(timespec="seconds"),
            "proposed_by": by or user_name(),
        }
    )
    found = digest(content)
    registry.bucket.create(_path(name, found), content)
    return found


def _write_table(services: Services, item: Judged) -> None:
    """Copy evidence into the operations table; the evidence itself is kept by now, and decides."""
    if item.evidence["nights"]:
        try:
            write_accumulated(services, item.spec, item.evidence)
        except NightscoreError as error:
            log.warning("%s: the evidence was kept and not copied into its table: %s", item.pipeline, error)


def carry_out(registry: Registry, name: str, kept: str, reason: str, *, by: str | None = None) -> Alias:
    """Move the alias of a kept proposal, whoever has approved it; its history holds the digests of what was judged.

    Args:
        registry: where the proposal is kept.
        name: the model.
        kept: the proposal's digest.
        reason: why.
        by: who decides; by default the user of this process.

    Raises:
        DigestError: the proposal, or the version, is not what it was.
        AliasMovedError: somebody else moved the alias since it was proposed.
    """
    proposal = _read(registry, name, kept)
    version = registry.load_manifest(name, proposal["to"], proposal["digest"])
    seen = registry.alias(name, proposal["alias"])
    if seen.last is not None and seen.last.get("proposal") == kept:
        return seen  # an earlier attempt has moved it, and its answer was lost
    if seen.generation != proposal["generation"]:
        raise AliasMovedError(name, seen.alias, seen.last)
    evidence = [{key: item[key] for key in ("pipeline", "evidence", "nights")} for item in proposal["judged"]]
    return registry.move_alias(
        seen, version, reason, by=by, forced=proposal["forced"], proposal=kept, evidence=evidence
    )


def require_approver(registry: Registry, name: str, kept: str, user: str) -> None:
    """Check that a user may approve a kept proposal.

    Raises:
        ApproversError: its policies name others.
    """
    approvers = _read(registry, name, kept)["approvers"]
    if approvers is not None and user not in approvers:
        raise ApproversError(
            f"The promotion of {name} was approved by {shorten(user)!r}, whom promotion.approvers does not name: "
            f"{listed(approvers)}. No alias was moved."
        )


def promote(
    services: Services, folder: Path, name: str, alias: str, version: str, reason: str, *, force: bool = False
) -> tuple[Alias, Proposal]:
    """Point an alias to a version if every policy allows it; return the alias as it is then, and what was judged.

    Args:
        services: the deployment.
        folder: where the specs are.
        name: the model.
        alias: the alias.
        version: a number, or the alias of the version that it shall point to.
        reason: why.
        force: whatever the policies say.

    Raises:
        PromotionRefusedError: a policy does not allow it.
        ApproversError: a policy names approvers, who are asked in Airflow.
        AliasMovedError: somebody else moved the alias meanwhile.
        ConfigurationError: there is no such version, or it is not what was registered.
    """
    if not reason.strip():
        raise ReasonError("A promotion needs a reason: --reason WHY. It is kept in the alias's history.")
    require_name(alias, "an alias")
    proposal = propose(services, folder, name, alias, version, force=force)
    named = [item for item in proposal.judged if item.policy.approvers]
    if not proposal.passed and not force:
        raise PromotionRefusedError(proposal)
    if named and not force:
        raise ApproversError(
            f"{listed(item.pipeline for item in named)}: promotion.approvers: {listed(proposal.approvers or ())} must "
            "approve, which a command line cannot know. Trigger the DAG model_lifecycle, or promote with --force and a "
            "reason."
        )
    kept = keep(services, proposal, forced=force and bool(named or not proposal.passed))
    return carry_out(services.registry, name, kept, reason), proposal


def due_challenger(services: Services, folder: Path, spec: Spec, record: Json) -> str | None:
    """Return the challenger that may be proposed by now, as `name/version`, or None.

    It is the first of a night's challengers that meets every policy, and that nobody was asked about before.

    Args:
        services: the deployment.
        folder: where the specs are.
        spec: the pipeline.
        record: the night's evidence.
    """
    registry, champion = services.registry, str(record["champion"])
    if spec.promotion is None or spec.model.version is not None or spec.model.source is not None:
        return None
    seen = registry.alias(spec.model.name, spec.model.alias_name)
    if champion != f"{spec.model.name}/{seen.version}":
        return None
    known = [registry.bucket.read_json(path) or {} for path in registry.bucket.iter_names(_folder(spec.model.name))]
    for challenger in record["challengers"]:
        number = int(challenger.rsplit("/", 1)[-1])
        if any((item.get("from"), item.get("to")) == (seen.version, number) and item.get("passed") for item in known):
            continue
        # The nights are counted first: everything else costs a query.
        if shared_nights(services.bucket, spec.name, record, challenger) < spec.promotion.min_nights:
            continue
        if propose(services, folder, spec.model.name, spec.model.alias_name, str(number)).passed:
            return str(challenger)
    return None


def _read(registry: Registry, name: str, kept: str) -> Json:
    stored = registry.bucket.read(_path(name, kept))
    if stored is None or digest(stored.data) != kept:
        raise DigestError(registry.bucket.uri(_path(name, kept)), kept, digest(stored.data if stored else b""))
    return stored.json()


def _folder(name: str) -> str:
    return f"{ROOT}{name}/proposals/"


def _path(name: str, found: str) -> str:
    return f"{_folder(name)}{found}.json"
