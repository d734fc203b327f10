#!/usr/bin/env bash
# Plans one environment: plan.tfplan and plan.json in OUT, which stay on this machine, and plan.md, which may be shown.
#   ENVIRONMENT     dev or prod: terraform/environments/ENVIRONMENT.tfvars
#   BACKEND         a file with the settings of the backend
#   TF_VAR_package  the wheel's version that Airflow shall have
#   LOCK            false where the state may only be read
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
root=${TERRAFORM_ROOT:-$scripts/../../terraform}
out=$(mkdir -p "$OUT" && cd "$OUT" && pwd)
export TF_IN_AUTOMATION=1 TF_INPUT=0
# Once the providers are locked in the repository, another one is an error and not a change of the file.
locked=()
if [[ -f $root/.terraform.lock.hcl ]]; then locked=(-lockfile=readonly); fi

terraform -chdir="$root" init -no-color -backend-config="$BACKEND" "${locked[@]}" > /dev/null
terraform -chdir="$root" plan -no-color -lock="${LOCK:-true}" -lock-timeout=5m \
  -var-file="environments/$ENVIRONMENT.tfvars" -out="$out/plan.tfplan" > "$out/plan.txt"
terraform -chdir="$root" show -no-color -json "$out/plan.tfplan" > "$out/plan.json"
python3 "$scripts/plan_summary.py" "$out/plan.json" "$ENVIRONMENT" > "$out/plan.md"
echo "digest=$(python3 "$scripts/plan_summary.py" "$out/plan.json" --digest)"
