#!/usr/bin/env bash
# Plans every pipeline of the folder NIGHTSCORE_PIPELINES_DIR for the PARTITION; runs nothing and publishes nothing.
# Blocked by data (exit code 1) is what a night may be; a spec, a model or a table that is wrong, or a server that does
# not answer, is what a deployment must not be.
set -uo pipefail
failed=0 planned=0
# A broken spec is listed like any other, and its plan says what is wrong.
names=$(nightscore pipelines list --json | python3 -c 'import json, sys; print(*(p["name"] for p in json.load(sys.stdin)))') || exit 2
for name in $names; do
  said=$(nightscore plan --partition "$PARTITION" -- "$name" 2>&1)
  code=$?
  planned=$((planned + 1))
  case $code in
    0) echo "$name: ready" ;;
    1) printf '%s: blocked by its data\n%s\n' "$name" "$said" ;;
    *) printf '%s: FAILED\n%s\n' "$name" "$said"; failed=$((failed + 1)) ;;
  esac
done
test "$planned" -gt 0 || { echo "There are no pipelines in ${NIGHTSCORE_PIPELINES_DIR:-dags/pipelines}." >&2; exit 2; }
echo "$planned planned, $failed failed"
test "$failed" -eq 0
