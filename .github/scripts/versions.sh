#!/usr/bin/env bash
# Prints `package=…` and `release=…`: the versions of this commit's wheel and of its DAGs and specs.
# The wheel's moves only with what is in it, so that a changed spec does not build Airflow's environment again.
set -euo pipefail
export TZ=UTC
when() { git log -1 --format=%cd --date=format-local:%Y%m%d%H%M%S "$@"; }
version=$(sed -nE 's/^version = "([0-9]+\.[0-9]+\.[0-9]+)"$/\1/p' pyproject.toml)
test -n "$version" || { echo "pyproject.toml has no version like 1.2.3." >&2; exit 2; }
echo "package=$version.dev$(when -- include pyproject.toml README.md)"
echo "release=$(when)-$(git rev-parse --short=12 HEAD)"
