"""Pipelines: does each spec parse, does all that it names exist and fit, and is its model what was registered?"""

from collections.abc import Iterator

from nightscore.check import check_challengers, check_pipeline
from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, fault, ok, warning
from nightscore.errors import ConfigurationError
from nightscore.spec import Spec
from nightscore.specs import SpecError, shared_tables


def check_pipelines(deployment: Deployment) -> Iterator[Finding]:
    """Check every pipeline as `nightscore pipelines check` does, and hash its model's files."""
    if not deployment.items:
        yield ok("pipelines", f"there are none in {deployment.folder}")
    shared = shared_tables(deployment.specs)
    for item in deployment.items:
        if isinstance(item, SpecError):
            yield fault(item.pipeline, str(item), f"Mend {deployment.folder / item.pipeline / 'pipeline.yaml'}.")
            continue
        yield from _check(deployment, item, [shared[item.name]] if item.name in shared else [])


def _check(deployment: Deployment, spec: Spec, faults: list[str]) -> Iterator[Finding]:
    services, command = deployment.services, f"nightscore pipelines check {spec.name}"
    faults += check_pipeline(spec, services)
    model = ""
    try:
        version = services.registry.resolve(spec.model)
        model = f"model {version.label}"
        services.registry.require_whole(version)
        for sentence in version.require_libraries():
            yield warning(spec.name, sentence, "Install the libraries that the model was made with.")
    except ConfigurationError as error:
        if str(error) not in faults:
            faults.append(str(error))
    for sentence in faults:
        yield fault(spec.name, sentence, f"Mend it; {command} says when it fits.")
    if not faults:
        yield ok(spec.name, f"{model}, whole; {spec.source} fits, and so does {spec.predictions.table}")
        for sentence in check_challengers(spec, services):
            yield warning(spec.name, sentence, f"Mend it, or take the challenger out; {command} says when it fits.")
