# Source this file to use the sandbox in a script.
# shellcheck shell=bash

# Builds the sandbox and starts it on free ports. Sets API_URL, ENTRA_URL and SANDBOX, its process id.
# A trap stops it when the script exits.
start_sandbox() {
  local folder
  cargo build --locked --quiet --example sandbox
  folder=$(mktemp -d)
  PORT=0 ENTRA_PORT=0 RUST_LOG=warn "${CARGO_TARGET_DIR:-target}/debug/examples/sandbox" >"$folder/out" 2>"$folder/log" &
  SANDBOX=$!
  # shellcheck disable=SC2064  # expand now: folder is local
  trap "kill $SANDBOX; wait $SANDBOX; rm -r '$folder'" EXIT
  for _ in {1..200}; do
    read -r API_URL ENTRA_URL < <(sed -nE 's/^API: ([^,]+), local Entra: (.+)$/\1 \2/p' "$folder/out") && break
    sleep 0.05
  done
  if [[ -z ${ENTRA_URL:-} ]]; then
    cat "$folder/log" >&2
    return 1
  fi
  export API_URL ENTRA_URL
}
