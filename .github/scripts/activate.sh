#!/usr/bin/env bash
# Activates RELEASE in DAGS_BUCKET, unless what is active now is of a commit that this one does not stand on: somebody
# approved late, and a newer release is there already.
set -euo pipefail
listed=$(nightscore release list --json --bucket "$DAGS_BUCKET" --prefix "${DAGS_PREFIX:-dags}")
read -r active revision < <(python3 -c '
import json, sys
found = json.load(sys.stdin)
active = found["active"] or "nothing"
print(active, next((r["git_revision"] or "unknown" for r in found["releases"] if r["version"] == active), "unknown"))
' <<< "$listed")
if [[ $revision != unknown ]] && ! git merge-base --is-ancestor "$revision" HEAD; then
  echo "The active release $active is of $revision, which this commit does not stand on. Nothing was activated." >&2
  exit 1
fi
nightscore release activate --bucket "$DAGS_BUCKET" --prefix "${DAGS_PREFIX:-dags}" \
  --replacing "$active" --reason "$REASON" -- "$RELEASE"
