#!/usr/bin/env bash
# What can be said about scripts, the Dockerfile and the Kubernetes manifests without a container engine: shellcheck, hadolint,
# yamllint, the schemas of Kubernetes, what pgweir says to the configurations in the manifests, and kustomize, where that is
# installed. One line per check, and at the end `N passed, N failed`.
#
# usage: tests/manifests.sh   PGWEIR_BIN names the pooler (default target/release/pgweir). What must be installed: tests/needs.sh test.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
PGWEIR_BIN=${PGWEIR_BIN:-$TARGET_DIR/release/pgweir}
TOOLS=$TARGET_DIR/venv/bin
YAML_RULES='{extends: default, rules: {line-length: {max: 140}, truthy: {check-keys: false}}}'
passed=0 failed=0

# verdict NAME COMMAND...: a check that is one command; what it prints is shown if it fails.
verdict() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok $name"
  else
    failed=$((failed + 1))
    printf '%s\nFAIL %s\n' "$said" "$name"
  fi
}

# The sum of what another runner has counted.
add_counts() {
  local last
  tee "$TARGET_DIR/manifests.log" | sed '$d'
  last=$(tail -n 1 "$TARGET_DIR/manifests.log")
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
  else
    failed=$((failed + 1))
    printf '%s\nFAIL the checks of manifests broke off\n' "$last"
  fi
}

shopt -s extglob
for script in docker/*.sh tests/engine.sh tests/images.sh tests/manifests.sh tests/needs.sh config/debian/!(*.conf); do
  verdict "shellcheck $script" shellcheck -x "$script"
done
verdict "hadolint docker/Dockerfile" "$TOOLS/hadolint" docker/Dockerfile
verdict "yamllint config/kubernetes" "$TOOLS/yamllint" --strict -d "$YAML_RULES" config/kubernetes
if command -v kustomize >/dev/null; then
  for folder in config/kubernetes/*/; do verdict "kustomize build $folder" kustomize build "$folder"; done
else
  echo "skip kustomize build: kustomize is not installed"
fi
add_counts < <("$TOOLS/python" tests/manifests.py config/kubernetes "$PGWEIR_BIN" 2>&1)
echo "$passed passed, $failed failed"
((failed == 0))
