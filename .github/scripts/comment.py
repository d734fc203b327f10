"""Write a comment on a pull request, or replace the one that was written before: `comment.py MARK FILE`.

NUMBER is the pull request's; GITHUB_API_URL, GITHUB_REPOSITORY and GH_TOKEN are as GitHub sets them.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

LONGEST = 65_000
PAGE = 100


def main() -> None:
    """Find the comment with this mark that a workflow has written, and replace it; else write one."""
    mark = f"<!-- nightscore: {sys.argv[1]} -->"
    text = Path(sys.argv[2]).read_text(encoding="utf-8")
    if len(text) > LONGEST:
        text = text[:LONGEST] + "\n\n… the rest is in the job's summary.\n"
    body = {"body": f"{mark}\n{text}"}
    issues = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    number = int(os.environ["NUMBER"])
    page = 1
    while True:
        found = ask("GET", f"{issues}/{number}/comments?per_page={PAGE}&page={page}")
        for comment in found:
            # Somebody who quotes the comment quotes its mark.
            if comment["user"]["type"] == "Bot" and comment["body"].startswith(mark):
                ask("PATCH", f"{issues}/comments/{int(comment['id'])}", body)
                return
        if len(found) < PAGE:
            break
        page += 1
    ask("POST", f"{issues}/{number}/comments", body)


def ask(method: str, path: str, content: dict[str, str] | None = None) -> Any:
    """Send a request to GitHub's API and return the answer."""
    request = urllib.request.Request(  # noqa: S310 - GitHub's own address, from the runner
        os.environ["GITHUB_API_URL"] + path,
        method=method,
        data=None if content is None else json.dumps(content).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GH_TOKEN']}",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


if __name__ == "__main__":
    main()
