#!/usr/bin/env bash
# Everything that must hold, as CI runs it: style, lints, documentation, the Rust tests, real drivers, scripts and manifests, the
# benchmark's own tests and a moment of it, the monitoring, and a short soak. Goes on after a failure, says how long each step took,
# and ends with one line `N passed, N failed` that counts the Rust tests, the driver, manifest, monitoring and soak checks, and the
# steps without a count of their own. All Rust code is
# built with the one development profile, the pooler under the drivers too: with its debug assertions.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
SOAK_SECONDS=10
RUST_TESTS_SECONDS_MAX=2400
DRIVERS_SECONDS_MAX=2400
BENCH_SECONDS_MAX=120
MONITORING_SECONDS_MAX=1200
OUTPUT=$(mktemp)
trap 'rm -f "$OUTPUT"' EXIT

passed=0 failed=0 durations=()

# step NAME COMMAND...: runs a step, shows its output, counts its results.
step() {
  local name=$1 began=$SECONDS status counted
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" </dev/null 2>&1 | tee "$OUTPUT"
  status=${PIPESTATUS[0]}
  counted=$(count "$OUTPUT")
  passed=$((passed + ${counted% *}))
  failed=$((failed + ${counted#* }))
  # A step that fails without having counted a failure has failed as a whole; one that counts nothing is one check.
  if ((status != 0)) && [[ ${counted#* } == 0 ]]; then failed=$((failed + 1)); fi
  if ((status == 0)) && [[ $counted == '0 0' ]]; then passed=$((passed + 1)); fi
  durations+=("$(printf '%-8s %5d s  %s' "$name" $((SECONDS - began)) "$( ((status == 0)) && echo ok || echo FAILED)")")
}

# count FILE: "PASSED FAILED" in a step's output: cargo's `test result:` lines, or the last line of our own runners.
count() {
  sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p; s/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$1" |
    awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0 }'
}

tests/needs.sh test || exit 1
step fmt cargo fmt --check
step clippy cargo clippy --locked --all-targets -- -D warnings
step doc env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
step build cargo build --locked
step rust timeout "$RUST_TESTS_SECONDS_MAX" cargo test --locked --no-fail-fast
export PGWEIR_BIN=${PGWEIR_BIN:-$TARGET_DIR/debug/pgweir}
step drivers timeout "$DRIVERS_SECONDS_MAX" tests/drivers/run.sh
step manifests tests/manifests.sh
step bench-fmt cargo fmt --check --manifest-path benches/Cargo.toml
step bench-clippy cargo clippy --locked --all-targets --all-features --manifest-path benches/Cargo.toml --target-dir "$TARGET_DIR/bench" -- -D warnings
step bench-test cargo test --locked --manifest-path benches/Cargo.toml --target-dir "$TARGET_DIR/bench"
step bench-build cargo build --locked --manifest-path benches/Cargo.toml --target-dir "$TARGET_DIR/bench"
step bench-run timeout "$BENCH_SECONDS_MAX" "$TARGET_DIR/bench/debug/pgweir-bench" run --rounds 1 --seconds 0.3 --no-calls \
  --idle-clients 50 --only simple-8,copy-in,open-50,idle-tls --json "$TARGET_DIR/bench/smoke.json"
step monitoring timeout "$MONITORING_SECONDS_MAX" tests/monitoring.sh
step soak tests/soak.sh "$SOAK_SECONDS"

printf '\nsteps, and how long they took:\n'
printf '  %s\n' "${durations[@]}"
echo "$passed passed, $failed failed"
((failed == 0))
