# shellcheck shell=bash
# The shell tests, each counted.

part_scripts() {
  command -v bats >/dev/null || { check "bats is installed" false; return; }
  local line
  while IFS= read -r line; do
    case $line in
      'ok '*) passed=$((passed + 1)); say "ok   scripts: ${line#ok * }" ;;
      'not ok '*) failed=$((failed + 1)); say "FAIL scripts: ${line#not ok * }" ;;
      '#'*) say "     $line" ;;
    esac
  done < <(bats --tap "$STACK_DIR/scripts.bats" 2>&1)
}
