#!/bin/sh
# Write the stack's .env: random secrets, and where the warehouse is.
#
#   deploy/stack/env.sh [FILE]            for a project on Google Cloud; fill in what it asks for
#   LOCAL=1 deploy/stack/env.sh [FILE]    for the local servers of the profile `local`
#
# A line that is there is never changed: run again, it adds what a newer version needs and the file lacks.
set -eu

file=${1:-.env}
umask 077
touch "$file"
chmod 600 "$file"
if [ -n "$(tail -c 1 "$file")" ]; then
  echo >>"$file" # somebody's editor left the last line open
fi

if [ -n "${LOCAL:-}" ] && grep -q '^NIGHTSCORE_PROJECT=' "$file" && ! grep -q '^NIGHTSCORE_PROJECT=local$' "$file"; then
  echo "$file is for a project on Google Cloud. Move it away, or take another folder, for the local servers." >&2
  exit 1
fi

random() { # BYTES: as base64 that is safe in a URL, without a line break
  head -c "$1" /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_'
}

add() { # NAME VALUE [WHY]
  if ! grep -q "^#\{0,1\}$1=" "$file"; then
    printf '%s%s=%s\n' "${3:+# $3
}" "$1" "$2" >>"$file"
    added="${added:+$added, }$1"
  fi
}

added=
add FERNET_KEY "$(random 32)" "Encrypts Airflow's connections and variables. To rotate: new,old (docs/stack.md)."
add JWT_SECRET "$(random 64)" "Signs what tasks and users show to the API server."
add API_SECRET_KEY "$(random 64)" "Signs sessions, and requests for logs."
add POSTGRES_PASSWORD "$(random 24)" "Taken when the volume is created; to change it later: docs/stack.md."
add REDIS_PASSWORD "$(random 24)"

if [ -n "${LOCAL:-}" ]; then
  add COMPOSE_PROFILES local "The local BigQuery and storage servers, with the demo's data."
  add NIGHTSCORE_PROJECT local
  add NIGHTSCORE_BUCKET nightscore-local
  add BIGQUERY_EMULATOR_HOST http://bigquery:9050
  add BIGQUERY_STORAGE_EMULATOR_HOST bigquery:9060
  add STORAGE_EMULATOR_HOST http://storage:4443
else
  add NIGHTSCORE_PROJECT "${NIGHTSCORE_PROJECT:-}" "The Google Cloud project that runs and pays for the queries."
  add NIGHTSCORE_BUCKET "${NIGHTSCORE_BUCKET:-}" "The bucket of the registry and of the runs' records, without gs://."
  add NIGHTSCORE_LOCATION "${NIGHTSCORE_LOCATION:-US}" "Where the datasets are."
fi

if [ -n "$added" ]; then
  echo "$file: added $added."
else
  echo "$file has everything; nothing was changed."
fi
for name in NIGHTSCORE_PROJECT NIGHTSCORE_BUCKET; do
  if grep -q "^$name=\$" "$file"; then
    echo "Fill in $name in $file."
  fi
done
