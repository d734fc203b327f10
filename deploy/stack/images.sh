#!/bin/sh
# Get the stack's images: what .env names is pulled, and what it does not name is built.
#
#   deploy/stack/images.sh [FILE]         FILE is .env
set -eu

file=${1:-.env}

named() { # NAME: whether the environment, which goes before it, or the file names an image
  [ -n "$(printenv "$1" || true)" ] || grep -q "^$1=[\"']\{0,1\}[^\"' ]" "$file"
}

get() { # NAME, the service that builds the image, another one that has it
  if named "$1"; then
    docker compose pull "$3" # not the first: Compose would take a pull that failed for a reason to build
  else
    docker compose build "$2"
  fi
}

get NIGHTSCORE_IMAGE init worker
if docker compose config --services | grep -qx bigquery; then
  get NIGHTSCORE_LOCAL_IMAGE bigquery storage
fi
