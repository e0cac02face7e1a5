# shellcheck shell=bash
# Builds what the wanted parts need. An image that can't be built ends the run: nothing after it could say anything.

build_images() {
  if [[ -n ${WALG:-} ]]; then build_walg; fi
  build postgres postgres
  if [[ -z ${PGWEIR_IMAGE:-} ]]; then build_pooler; fi
  if one_of pgpool "$@"; then build pgpool pgpool; fi
  if one_of ha "$@"; then build etcd etcd1; fi
  if one_of monitoring "$@"; then build monitoring prometheus; fi
  if one_of backup "$@" || one_of monitoring "$@"; then build_s3; fi
}

# build NAME SERVICE
build() {
  local started
  started=$(now_ms)
  check "image $1 builds" timeout 1500 docker compose --project-directory "$ROOT_DIR/docker" --file "$ROOT_DIR/docker/compose.yaml" \
    --env-file "$WORK/env" --profile '*' build --quiet "$2" || exit 1
  measured "image $1" "$(seconds_since "$started")" "compose build; layers that are there are taken"
}

# The S3 server of the tests is a crate: its binary is built here and copied.
build_s3() {
  local folder=$WORK/s3
  mkdir -p "$folder"
  cp "$STACK_DIR"/s3/* "$folder/"
  check "the S3 server's binary" s3_binary "$folder/s3s-fs" || exit 1
  check "image s3 builds" timeout 600 docker buildx build --quiet --build-arg BASE="$ENGINE_BASE" --label "$ENGINE_LABEL" --tag "$PROJECT/s3" "$folder" || exit 1
}

# An image that holds the binary, for WALG_FROM.
build_walg() {
  local folder=$WORK/walg
  mkdir -p "$folder/out"
  cp "$WALG" "$folder/out/wal-g"
  printf 'FROM scratch\nCOPY out/ /out/\n' >"$folder/Dockerfile"
  check "image walg builds" docker buildx build --quiet --label "$ENGINE_LABEL" --tag "$PROJECT/walg" "$folder" || exit 1
}

# Without optimisation: that takes three minutes of a processor instead of an hour and a half, and it serves megabytes.
S3S_FS_VERSION=0.14.1
s3_binary() {
  if [[ -n ${S3S_FS:-} ]]; then cp "$S3S_FS" "$1"; return; fi
  if [[ ! -x $WORK/tools/bin/s3s-fs ]]; then
    local started
    started=$(now_ms)
    CARGO_PROFILE_DEV_DEBUG=0 timeout 1200 cargo install s3s-fs --version "$S3S_FS_VERSION" --locked --features binary --debug \
      --root "$WORK/tools" --target-dir "$WORK/tools-target" || return 1
    measured "the S3 server compiles" "$(seconds_since "$started")" "cargo install, once for all runs in this target folder"
  fi
  cp "$WORK/tools/bin/s3s-fs" "$1"
}

# The pooler of this tree: compiled here, where the crates and the cache are, and packaged as users' builds are.
build_pooler() {
  local built=${PGWEIR_BIN:-${CARGO_TARGET_DIR:-$ROOT_DIR/target}/release/pgweir} started
  if [[ -z ${PGWEIR_BIN:-} ]]; then
    started=$(now_ms)
    check "pgweir builds" timeout 1500 cargo build --release --locked --manifest-path "$ROOT_DIR/Cargo.toml" || exit 1
    measured "pgweir builds" "$(seconds_since "$started")" "cargo build --release; what is compiled already is taken"
  fi
  # Where the image's build looks for it.
  [[ $built -ef $ROOT_DIR/target/release/pgweir ]] || install -D "$built" "$ROOT_DIR/target/release/pgweir"
  build pgweir pgweir
}
