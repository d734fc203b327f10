"""What must hold for the stack's files, each rule as a function from a file's content to the sentences it breaks."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from stack.compose import ROOT, Dockerfile, Stage, exec_form

PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
SECRET = re.compile(r"PASSWORD|SECRET|FERNET|TOKEN|PRIVATE|API_KEY|REDISCLI_AUTH")
URL_WITH_PASSWORD = re.compile(r"//[^/@\s:]*:([^@]*)@")
FROM_ENV = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}")
TOOLS = re.compile(r"\b(pip|uv|gcc|g\+\+|make|build-essential|git|curl|wget)\b")


@dataclass(frozen=True)
class Compose:
    """A compose file as it is written, and as Docker resolves it."""

    text: str
    resolved: Mapping[str, Any]

    @property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        """The resolved services."""
        found: Mapping[str, Mapping[str, Any]] = self.resolved["services"]
        return found

    @property
    def written(self) -> Mapping[str, Mapping[str, Any]]:
        """The services with nothing filled in for `${NAME}`."""
        found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(self.text)["services"]
        return found

    @property
    def ours(self) -> set[str]:
        """The images that the file itself builds."""
        return {str(own.get("image")) for own in self.services.values() if "build" in own}

    @property
    def long_running(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The services that are not over when they have done their work."""
        return ((name, own) for name, own in self.services.items() if own.get("restart") == "unless-stopped")


def images_are_pinned(compose: Compose) -> Iterator[str]:
    """An image of others has a tag and a digest; one of ours has a tag."""
    for name, own in compose.services.items():
        image = str(own.get("image", ""))
        if image not in compose.ours and not PINNED.fullmatch(image):
            yield f"{name}: the image {image} is not pinned by a digest"
        if ":" not in image or image.endswith(":latest"):
            yield f"{name}: the image {image} has no tag of its own"


def images_are_built_once(compose: Compose) -> Iterator[str]:
    """One service alone says how an image is built: two builds of one tag get in each other's way."""
    built = [str(own.get("image")) for own in compose.services.values() if "build" in own]
    for image in sorted({image for image in built if built.count(image) > 1}):
        yield f"{image} is built by {built.count(image)} services"


def nobody_is_root(compose: Compose) -> Iterator[str]:
    """An image of others runs as a user by number; of ours, the Dockerfile sees to it."""
    for name, own in compose.services.items():
        user = str(own.get("user", "")).split(":", maxsplit=1)[0]
        if user in ("0", "root") or (not user and own.get("image") not in compose.ours):
            yield f"{name}: runs as root"


def rights_are_dropped(compose: Compose) -> Iterator[str]:
    """No service may more than its user."""
    for name, own in compose.services.items():
        if own.get("cap_drop") != ["ALL"] or own.get("cap_add"):
            yield f"{name}: has capabilities"
        if "no-new-privileges:true" not in own.get("security_opt", []):
            yield f"{name}: may gain privileges"
        if own.get("privileged") or own.get("network_mode") == "host" or own.get("pid") == "host":
            yield f"{name}: is not kept apart from the host"
        if any("docker.sock" in str(volume) for volume in own.get("volumes", [])):
            yield f"{name}: holds the engine"


def secrets_come_from_env(compose: Compose) -> Iterator[str]:
    """A secret is `${NAME:?…}` and nothing else: no literal, and no default."""
    for name, own in compose.written.items():
        for key, value in (own.get("environment") or {}).items():
            text = str(value)
            if SECRET.search(key) and value is not None and not FROM_ENV.fullmatch(text):
                yield f"{name}: {key} is not from .env alone"
            for password in URL_WITH_PASSWORD.findall(text):
                if not FROM_ENV.fullmatch(password):
                    yield f"{name}: {key} holds a password"
        for part in [own.get("command"), (own.get("healthcheck") or {}).get("test")]:
            if re.search(r"--password|--requirepass|\$\{[A-Z_]*(PASSWORD|SECRET|FERNET)", str(part)):
                yield f"{name}: a command line shows a password"


def services_report_health(compose: Compose) -> Iterator[str]:
    """Whatever runs on has a health check with all its times."""
    for name, own in compose.long_running:
        check = own.get("healthcheck") or {}
        if not check.get("test") or check.get("disable"):
            yield f"{name}: has no health check"
        for key in ("interval", "timeout", "retries", "start_period"):
            if key not in check:
                yield f"{name}: its health check has no {key}"


def services_start_again(compose: Compose) -> Iterator[str]:
    """Every service says whether it is started again."""
    for name, own in compose.services.items():
        if own.get("restart") not in ("unless-stopped", "on-failure", "no", False):
            yield f"{name}: has no restart policy"
    if len(list(compose.long_running)) < 9:
        yield "services: fewer than nine run on"


def resources_are_bounded(compose: Compose) -> Iterator[str]:
    """Memory, processors, processes and logs of every service have limits."""
    for name, own in compose.services.items():
        if not all(own.get(limit) for limit in ("mem_limit", "cpus", "pids_limit")):
            yield f"{name}: has no limits"
        # Current Compose refuses pids_limit beside limits of this form. Debian's, which the tests use, does not.
        if own.get("deploy", {}).get("resources"):
            yield f"{name}: has limits in two forms"
        if not {"max-size", "max-file"} <= set(own.get("logging", {}).get("options", {})):
            yield f"{name}: its logs have no limit"


def ports_are_local(compose: Compose) -> Iterator[str]:
    """Unless .env says otherwise, this machine alone reaches what is published."""
    for name, own in compose.services.items():
        for port in own.get("ports", []):
            if not str(port).startswith("127.0.0.1:") and not (
                isinstance(port, dict) and port.get("host_ip") == "127.0.0.1"
            ):
                yield f"{name}: {port} is open to the network"


def folders_of_the_host_are_read_only(compose: Compose) -> Iterator[str]:
    """What is written goes into named volumes."""
    for name, own in compose.services.items():
        for volume in own.get("volumes", []):
            source, _, rest = str(volume).partition(":")
            if source.startswith(("/", ".")) and not rest.endswith(":ro"):
                yield f"{name}: {volume} may be written to"


COMPOSE_POLICIES: tuple[Callable[[Compose], Iterator[str]], ...] = (
    images_are_pinned,
    images_are_built_once,
    nobody_is_root,
    rights_are_dropped,
    secrets_come_from_env,
    services_report_health,
    services_start_again,
    resources_are_bounded,
    ports_are_local,
    folders_of_the_host_are_read_only,
)


def final_stages(docker: Dockerfile) -> Iterator[Stage]:
    """Yield the stages that become images: those that have a command."""
    return (stage for stage in docker.stages.values() if stage.last("CMD"))


def bases_are_pinned(docker: Dockerfile) -> Iterator[str]:
    """Each stage begins with a pinned image or with another stage."""
    for stage in docker.stages.values():
        if stage.base not in docker.stages and not PINNED.fullmatch(stage.base):
            yield f"{stage.name}: the base {stage.base} is not pinned by a digest"


def images_run_as_a_user(docker: Dockerfile) -> Iterator[str]:
    """Each image ends with a user by number, whom Kubernetes can see not to be root."""
    for stage in final_stages(docker):
        user = (stage.last("USER") or "").split(":")[0]
        if not user.isdecimal() or user == "0":
            yield f"{stage.name}: the user is {user or 'root'}"


def images_report_health(docker: Dockerfile) -> Iterator[str]:
    """Each image has a health check, and a command in exec form, which gets signals."""
    found = list(final_stages(docker))
    if {stage.name for stage in found} != {"airflow", "local-servers"} or docker.default.name != "airflow":
        yield f"the images are {', '.join(stage.name for stage in found)}"
    for stage in found:
        check = (stage.last("HEALTHCHECK") or "").partition("CMD ")[2]
        if exec_form(check) is None:
            yield f"{stage.name}: has no health check"
        if exec_form(stage.last("CMD") or "") is None:
            yield f"{stage.name}: its command is a shell's"


def layers_hold_no_secrets(docker: Dockerfile) -> Iterator[str]:
    """No argument or variable of a build is a secret: an image's history shows them."""
    for stage in docker.stages.values():
        for text in (*stage.all("ARG"), *stage.all("ENV")):
            for name in re.findall(r"([A-Z_a-z]+)(?:=|$)", text):
                if SECRET.search(name.upper()):
                    yield f"{stage.name}: {name} stays in the image"
        for text in stage.all("COPY"):
            if re.search(r"\.env\b|\.key\b|\.pem\b|credentials", text):
                yield f"{stage.name}: {text} copies secrets"


def no_tools_are_left(docker: Dockerfile) -> Iterator[str]:
    """What builds stays in the stages that build: an image installs nothing by pip, and its own pip is deleted."""
    for stage in final_stages(docker):
        runs = " ; ".join(stage.all("RUN"))
        deleted = " ".join(re.findall(r"rm -rf ([^&;]*)", runs))
        if "/pip*" not in deleted or "/bin/pip*" not in deleted:
            yield f"{stage.name}: pip is left"
        kept = re.sub(r"rm -rf [^&;]*", "", runs)
        for tool in sorted(set(TOOLS.findall(kept))):
            yield f"{stage.name}: {tool} is used or left"


def copies_exist(docker: Dockerfile) -> Iterator[str]:
    """What is copied is in the checkout, and .dockerignore lets it in."""
    ignore = (ROOT / ".dockerignore").read_text().split("\n")
    let_in = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    for stage in docker.stages.values():
        for text in stage.all("COPY"):
            if text.startswith("--from="):
                source = text.partition(" ")[0].removeprefix("--from=")
                if source not in docker.stages:
                    yield f"{stage.name}: there is no stage {source}"
                continue
            for source in text.split()[:-1]:
                if not (ROOT / source).exists():
                    yield f"{stage.name}: {source} does not exist"
                if not any(fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in let_in):
                    yield f"{stage.name}: .dockerignore keeps {source} out"


def extras_exist(docker: Dockerfile) -> Iterator[str]:
    """The extras that are installed are in pyproject.toml."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    runs = " ".join(run for stage in docker.stages.values() for run in stage.all("RUN"))
    for extra in re.findall(r"--extra[ =](\S+)", runs) or ["(none)"]:
        if extra not in known:
            yield f"there is no extra {extra}"


def packages_come_before_the_code(docker: Dockerfile) -> Iterator[str]:
    """A change of the code leaves the layer with everything that it needs as it is."""
    for stage in docker.stages.values():
        copied = False
        for instruction, text in stage.instructions:
            copied = copied or (instruction == "COPY" and "include" in text.split())
            if copied and instruction == "RUN" and re.search(r"uv pip install(?!.*--no-deps)", text):
                yield f"{stage.name}: installs packages after the code is copied"


DOCKERFILE_POLICIES: tuple[Callable[[Dockerfile], Iterator[str]], ...] = (
    bases_are_pinned,
    images_run_as_a_user,
    images_report_health,
    layers_hold_no_secrets,
    no_tools_are_left,
    copies_exist,
    extras_exist,
    packages_come_before_the_code,
)


def ignores_by_default(path: Path) -> bool:
    """Return whether a .dockerignore keeps everything out that it does not name."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return bool(lines) and lines[0] == "*"
