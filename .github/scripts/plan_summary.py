"""Tell of a Terraform plan in Markdown, and reduce it to a digest: `plan_summary.py plan.json ENVIRONMENT`.

Which resources change and which of their attributes, never a value: a plan's values may be sensitive, and a pull
request is read by more people than the state is. What is destroyed comes first, and is never cut off. What the deployer
may do stands in deployer.json of TERRAFORM_ROOT, types by action; people apply the rest.
"""

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

LONGEST = 60_000  # characters; GitHub takes 65,536
MOST_ATTRIBUTES = 12
SIGNS = {
    ("delete",): ("-", "destroy"),
    ("delete", "create"): ("-/+", "replace"),
    ("create", "delete"): ("+/-", "replace"),
    ("forget",): ("forget", "forget"),
    ("create",): ("+", "add"),
    ("update",): ("~", "change"),
}
QUIET = {("no-op",), ("read",)}
IN_STATE = {"no-op", "read", "forget"}  # these ask no API to change anything
MOST_BY_PEOPLE = 40
# Who may do what: the deployer never changes that, whatever its list says.
GRANTS = re.compile(r"google_(\w+_)?iam_\w+|google_service_account(_\w+)?")


def main() -> None:
    """Print the Markdown, or with `--digest` or `--people` instead of an environment only these."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if sys.argv[2] == "--digest":
        sys.stdout.write(digest(plan) + "\n")
    elif sys.argv[2] == "--people":
        sys.stdout.writelines(f"{line}\n" for line in by_people(changed(plan)))
    else:
        sys.stdout.write(markdown(plan, sys.argv[2]))


def changed(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the resources that change, the most dangerous first."""
    order = list(SIGNS)
    found = [
        item
        for item in plan.get("resource_changes", [])
        if tuple(item["change"]["actions"]) not in QUIET or item["change"].get("importing")
    ]
    return sorted(found, key=lambda item: (_rank(order, item), item["address"]))


def is_grant(item: dict[str, Any]) -> bool:
    """Return whether a resource says who may do what."""
    return re.fullmatch(GRANTS, item.get("type", "")) is not None


def by_people(items: list[dict[str, Any]]) -> list[str]:
    """Return what the deployer may not do: action and address."""
    root = os.environ.get("TERRAFORM_ROOT") or Path(__file__).resolve().parents[2] / "terraform"
    allowed = json.loads((Path(root) / "deployer.json").read_text(encoding="utf-8"))
    return [
        f"{_sign(item)[1]} {item['address']}"
        for item in items
        if is_grant(item)
        or any(
            item.get("type") not in allowed.get(action, ())
            for action in item["change"]["actions"]
            if action not in IN_STATE
        )
    ]


def digest(plan: dict[str, Any]) -> str:
    """Return the SHA-256 of everything that applying the plan would change; two plans of one digest do the same."""
    content = {
        "resources": [
            {"address": item["address"], "deposed": item.get("deposed"), "change": item["change"]}
            for item in changed(plan)
        ],
        "outputs": {
            name: change
            for name, change in plan.get("output_changes", {}).items()
            if tuple(change["actions"]) not in QUIET
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def markdown(plan: dict[str, Any], environment: str) -> str:
    """Return a heading and a table of at most LONGEST characters."""
    items = changed(plan)
    counts: dict[str, int] = {}
    for item in items:
        word = _sign(item)[1]
        counts[word] = counts.get(word, 0) + 1
    words = ", ".join(f"{count} to {word}" for word, count in counts.items()) or "no changes"
    lines = [f"### Terraform plan for {environment}: {words}", ""]
    if counts.keys() & {"destroy", "replace"}:
        lines += ["**Something is destroyed.** See the first rows.", ""]
    if grants := sum(map(is_grant, items)):
        lines += [f"**It changes who may do what ({grants}).**", ""]
    if people := by_people(items):
        lines += [f"**People must apply {len(people)} of these before this is deployed:** the deployer may not.", ""]
        lines += [f"* {_code(line)}" for line in people[:MOST_BY_PEOPLE]]
        lines += [f"* … and {len(people) - MOST_BY_PEOPLE} more"] if len(people) > MOST_BY_PEOPLE else []
        lines += [""]
    lines += [f"Digest of the changes: `{digest(plan)}`", ""]
    if items:
        lines += ["| | resource | attributes |", "|---|---|---|"]
    size = sum(len(line) + 1 for line in lines)
    for number, item in enumerate(items):
        row = f"| `{_sign(item)[0]}` | {_code(item['address'])} | {_attributes(item['change'])} |"
        size += len(row) + 1
        if size > LONGEST:
            lines += ["", f"… and {len(items) - number} more; the job's log has all of them."]
            break
        lines.append(row)
    return "\n".join(lines) + "\n"


def _sign(item: dict[str, Any]) -> tuple[str, str]:
    actions = tuple(item["change"]["actions"])
    return ("import", "import") if actions in QUIET else SIGNS.get(actions, ("?", "change otherwise"))


def _rank(order: list[tuple[str, ...]], item: dict[str, Any]) -> int:
    actions = tuple(item["change"]["actions"])
    return order.index(actions) if actions in order else len(order)


def _attributes(change: dict[str, Any]) -> str:
    """Return the names of the attributes that change; of a new or destroyed resource, none."""
    before, after, unknown = (change.get(key) or {} for key in ("before", "after", "after_unknown"))
    if not change.get("before") or not change.get("after"):
        return ""
    names = sorted(
        name for name in {*before, *after, *unknown} if before.get(name) != after.get(name) or unknown.get(name)
    )
    causes = {str(path[0]) for path in change.get("replace_paths") or [] if path}
    shown = [f"{_code(name)} (forces the replacement)" if name in causes else _code(name) for name in names]
    more = f" … and {len(names) - MOST_ATTRIBUTES} more" if len(names) > MOST_ATTRIBUTES else ""
    return ", ".join(shown[:MOST_ATTRIBUTES]) + more


def _code(text: str) -> str:
    """Return text that is shown as it is: a key of for_each may hold anything."""
    flat = " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{flat[:300]}`"


if __name__ == "__main__":
    main()
