# shellcheck shell=bash
# What can be said without running anything.

part_static() {
  local tool profile
  for tool in shellcheck hadolint yamllint; do check "$tool is installed" command -v "$tool"; done
  local -a scripts=("$ROOT_DIR"/docker/postgres/scripts/*.sh "$ROOT_DIR"/docker/pgpool/*.sh "$ROOT_DIR"/docker/scripts/*
    "$ROOT_DIR/tests/stack.sh" "$STACK_DIR"/*.sh "$STACK_DIR"/s3/*.sh "$STACK_DIR"/inside/*.sh)
  check "shellcheck" shellcheck --external-sources --source-path=SCRIPTDIR "${scripts[@]}"
  check "shellcheck of the shell tests" shellcheck --shell=bats --exclude=SC1090,SC2030,SC2031,SC2034,SC2154 "$STACK_DIR/scripts.bats"
  local -a dockerfiles
  mapfile -t dockerfiles < <(find "$ROOT_DIR/docker" "$STACK_DIR" -name Dockerfile)
  check "hadolint" hadolint "${dockerfiles[@]}"
  check "yamllint" yamllint --strict --config-file "$STACK_DIR/yamllint.yml" "$ROOT_DIR/docker/compose.yaml" "$STACK_DIR/compose.yaml"
  check "the bucket's lifecycle is JSON" jq empty "$ROOT_DIR/docker/backup/lifecycle.json"
  check "every setting in .env.example is one of compose's" env_example
  if ! docker compose version >/dev/null 2>&1; then check "docker compose is installed" false; return; fi
  for profile in none replicas pgpool logical ha backup monitoring grafana citus; do
    check "compose config, profile $profile" docker compose --project-directory "$ROOT_DIR/docker" --file "$ROOT_DIR/docker/compose.yaml" \
      --env-file "$ROOT_DIR/docker/.env.example" --profile "$profile" config --quiet
  done
}

env_example() {
  local name
  while IFS= read -r name; do
    grep -qF "\${$name" "$ROOT_DIR/docker/compose.yaml" || { say "$name is not used"; return 1; }
  done < <(sed -nE 's/^#? ?([A-Z][A-Z0-9_]+)=.*/\1/p' "$ROOT_DIR/docker/.env.example")
}
