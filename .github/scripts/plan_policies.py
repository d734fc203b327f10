"""Hold a Terraform plan to the policies of tests/terraform: `plan_policies.py plan.json`; it needs nothing but Python.

What is wrong is said in the policies' sentences, which name resources, roles and members.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from terraform.plan import Plan
from terraform.policies import POLICIES


def main() -> None:
    """Print every fault; end with 1 when there is one."""
    plan = Plan(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    faults = []
    for policy in POLICIES:
        try:
            faults += [f"{policy.__name__}: {fault}" for fault in policy(plan)]
        except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
            # The error's text may hold a value of the plan.
            faults.append(f"{policy.__name__}: it cannot be told ({type(error).__name__})")
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    sys.stdout.write(f"{len(POLICIES)} policies, {len(faults)} faults\n")
    sys.exit(1 if faults or not POLICIES else 0)


if __name__ == "__main__":
    main()
