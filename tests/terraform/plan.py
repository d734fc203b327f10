"""What a plan's JSON says, as the tests ask for it."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A resource that is planned: its address, its type, its values as far as they are known."""

    address: str
    type: str
    values: Json

    @property
    def key(self) -> str:
        """What stands in the brackets of the address, of the resource or else of its module."""
        found = re.findall(r'\["([^"]+)"\]', self.address)
        return found[-1] if found else ""


@dataclass(frozen=True)
class Grant:
    """A role that a member is granted on a resource."""

    on: str
    role: str
    member: str
    condition: str | None
    address: str


class Plan:
    """A plan of an environment."""

    def __init__(self, content: Json) -> None:
        self.content = content

    def changed(self, change: Any) -> "Plan":
        """Return another plan, after `change` was made to a copy of its JSON."""
        content = copy.deepcopy(self.content)
        change(Plan(content))
        return Plan(content)

    def resources(self, *types: str) -> list[Resource]:
        """Return the planned resources of these types, or all."""
        return [
            Resource(item["address"], item["type"], item["values"])
            for item in _resources(self.content["planned_values"]["root_module"])
            if not types or item["type"] in types
        ]

    def one(self, address: str) -> Resource:
        """Return the resource at an address."""
        [found] = [item for item in self.resources() if item.address == address]
        return found

    def add(self, kind: str, **values: Any) -> None:
        """Plan another resource."""
        resource = {"address": f"{kind}.added", "mode": "managed", "type": kind, "name": "added", "values": values}
        self.content["planned_values"]["root_module"]["resources"].append(resource)

    def remove(self, kind: str) -> None:
        """Plan none of the resources of a type."""
        _remove(self.content["planned_values"]["root_module"], kind)

    def references(self, address: str, *path: str) -> set[str]:
        """Return what an argument's expression refers to, through the module that the resource is in.

        The value itself is not known before it is made; what it will be is known by this.
        """
        root = self.content["configuration"]["root_module"]
        steps = re.sub(r'\[("[^"]*"|\d+)\]', "", address).split(".")
        call: Json = {}
        module = root
        if steps[0] == "module":
            call = root["module_calls"][steps[1]]
            module, steps = call["module"], steps[2:]
        [found] = [item for item in module["resources"] if item["address"] == ".".join(steps)]
        expression: Any = found["expressions"]
        for step in path:
            expression = expression[0] if isinstance(expression, list) and expression else expression
            expression = expression.get(step) or {} if isinstance(expression, dict) else {}
        names = set(expression.get("references", [])) if isinstance(expression, dict) else set()
        for name in [it for it in names if it.startswith("var.") and call]:
            names |= set(call["expressions"].get(name.removeprefix("var."), {}).get("references", []))
        return names

    def data(self, address: str) -> Json:
        """Return what was read of a data source."""
        found = _resources(self.content["prior_state"]["values"]["root_module"])
        return next(dict(item["values"]) for item in found if item["address"] == address)

    @property
    def outputs(self) -> Json:
        """The outputs whose values are known."""
        return {name: it["value"] for name, it in self.content["planned_values"]["outputs"].items() if "value" in it}

    @property
    def variables(self) -> Json:
        """The variables' values."""
        return {name: it["value"] for name, it in self.content["variables"].items()}

    @property
    def grants(self) -> list[Grant]:
        """Every grant to a member."""
        return list(self._grants())

    def _grants(self) -> Iterator[Grant]:
        for item in self.resources():
            if not re.search(r"_iam_(member|binding|policy)$", item.type):
                continue
            condition = next((found["expression"] for found in item.values.get("condition") or []), None)
            members = item.values.get("members") or [item.values.get("member")]
            yield from (
                Grant(_on(item), str(item.values.get("role")), str(m), condition, item.address) for m in members
            )

    def identity(self, member: str) -> str | None:
        """Return which of the identities a member is, or None."""
        found = re.fullmatch(rf"serviceAccount:{re.escape(self.name)}-([a-z]+)@.*\.iam\.gserviceaccount\.com", member)
        return found[1] if found else None

    @property
    def name(self) -> str:
        """What every name begins with."""
        return f"{self.variables.get('prefix', 'nightscore')}-{self.variables['env']}"


def _on(item: Resource) -> str:
    """Return on what a grant is, in the words of `identities.tf`."""
    kind = item.type.removeprefix("google_").rsplit("_iam_", 1)[0]
    within = re.match(r'module\.([a-z_]+)(\["([^"]+)"\])?', item.address)
    if within:
        return within[3] if within[1] == "dataset" else within[1]
    if kind == "service_account":
        return item.key.split(" ")[0]
    return "features" if ".features[" in item.address else kind


def _resources(module: Mapping[str, Any]) -> Iterator[Json]:
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from _resources(child)


def _remove(module: Json, kind: str) -> None:
    module["resources"] = [item for item in module.get("resources", []) if item["type"] != kind]
    for child in module.get("child_modules", []):
        _remove(child, kind)
