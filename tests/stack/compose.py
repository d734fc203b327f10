"""docker-compose.yaml and the Dockerfile as data: what Docker itself would start, and with what."""

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE, DOCKERFILE, ENV_SCRIPT = ROOT / "docker-compose.yaml", ROOT / "Dockerfile", ROOT / "deploy/stack/env.sh"


@functools.cache
def compose_program() -> list[str]:
    """Return Docker's own program that reads compose files; no engine is needed for that."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
        ):
            return command
    raise FileNotFoundError("docker-compose")


def resolve(env_file: Path, compose: Path = COMPOSE, *profiles: str) -> dict[str, Any]:
    """Return the compose file as Docker's own program resolves it: anchors, variables, relative paths.

    Raises:
        ValueError: the program refuses the file; says why.
    """
    command = [*compose_program(), "--file", str(compose), "--env-file", str(env_file)]
    for profile in profiles:
        command += ["--profile", profile]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}  # none of this shell's variables
    done = subprocess.run([*command, "config"], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    found: dict[str, Any] = _unescaped(yaml.safe_load(done.stdout))
    return found


def filled(text: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Return what a compose file says with its `${NAME}` filled in: quick, and without Docker's checks."""

    def fill(found: re.Match[str]) -> str:
        return values.get(found["name"]) or found["default"] or ""

    pattern = r"(?<!\$)\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}"
    read: dict[str, Any] = yaml.safe_load(re.sub(pattern, fill, text))
    return read


def _unescaped(value: Any) -> Any:
    """Undo what `config` does so that its output may be read by itself again: a dollar is doubled."""
    if isinstance(value, dict):
        return {key: _unescaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unescaped(item) for item in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


def make_env(file: Path, **variables: str) -> str:
    """Write a .env as `make env LOCAL=1` does; return what it said."""
    environment = {"PATH": os.environ["PATH"], "LOCAL": "1", **variables}
    return subprocess.run([ENV_SCRIPT, file], env=environment, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Stage:
    """One stage of a Dockerfile: its base and its instructions, in order."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of every such instruction."""
        return [text for name, text in self.instructions if name == instruction]

    def last(self, instruction: str) -> str | None:
        """Return the arguments of the last such instruction, which is the one that counts."""
        return next(reversed(self.all(instruction)), None)

    def environment(self) -> dict[str, str]:
        """Return what ENV sets."""
        pairs = (pair.partition("=")[::2] for text in self.all("ENV") for pair in shlex.split(text))
        return dict(pairs)


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile: the arguments before its first stage, and its stages."""

    arguments: Mapping[str, str]
    stages: Mapping[str, Stage]

    @property
    def default(self) -> Stage:
        """The stage that is built when none is named."""
        return list(self.stages.values())[-1]


def read_dockerfile(path: Path = DOCKERFILE) -> Dockerfile:
    """Read a Dockerfile."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, text = line.partition(" ")
        if instruction.upper() == "FROM":
            base, _, name = text.strip().partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda found: arguments.get(found[1], ""), base)
            stage = stages[name or f"{len(stages)}"] = Stage(name or f"{len(stages)}", base)
        elif stage is None:
            name, _, value = text.strip().partition("=")
            arguments[name] = value
        else:
            stage.instructions.append((instruction.upper(), text.strip()))
    return Dockerfile(arguments, stages)


def exec_form(text: str) -> list[str] | None:
    """Return the list of an instruction in exec form, such as that of CMD; None in shell form."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return [str(item) for item in found] if isinstance(found, list) else None
