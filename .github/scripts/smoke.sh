#!/usr/bin/env bash
# Plans every pipeline of the folder NIGHTSCORE_PIPELINES_DIR for the PARTITION; runs nothing and publishes nothing.
# Blocked by data (exit code 1) is what a night may be; a spec, a model or a table that is wrong, or a server that does
# not answer, is what a deployment must not be.
set -euo pipefail
said=$(mktemp -d)
export said
trap 'rm -rf "$said"' EXIT

# A broken spec is listed like any other, and its plan says what is wrong.
nightscore pipelines list --json |
  python3 -c 'import json, sys; print(*(p["name"] for p in json.load(sys.stdin)), sep="\n")' > "$said/names"
grep -q . "$said/names" || { echo "There are no pipelines in ${NIGHTSCORE_PIPELINES_DIR:-dags/pipelines}." >&2; exit 2; }

plan() {
  local code=0
  nightscore plan --partition "$PARTITION" -- "$1" > "$said/$1.txt" 2>&1 || code=$?
  echo "$code" > "$said/$1.code"
}
export -f plan
# Mostly, they wait for BigQuery. The bash that xargs starts expands the name.
# shellcheck disable=SC2016
xargs -P "${AT_ONCE:-8}" -I NAME bash -c 'plan "$1"' plan NAME < "$said/names"

failed=0
while read -r name; do
  case $(cat "$said/$name.code") in
    0) echo "$name: ready" ;;
    1) echo "$name: blocked by its data"; cat "$said/$name.txt" ;;
    *) echo "$name: FAILED"; cat "$said/$name.txt"; failed=$((failed + 1)) ;;
  esac
done < "$said/names"
echo "$(wc -l < "$said/names") planned, $failed failed"
test "$failed" -eq 0
