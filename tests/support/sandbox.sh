# Sourced by scripts that need the sandbox: builds it, starts it on free ports, and stops it with the script.
# shellcheck shell=bash

# Sets API_URL and ENTRA_URL, and stops the sandbox when the script ends.
start_sandbox() {
  local folder
  cargo build --locked --quiet --example sandbox
  folder=$(mktemp -d)
  PORT=0 ENTRA_PORT=0 RUST_LOG=warn "${CARGO_TARGET_DIR:-target}/debug/examples/sandbox" >"$folder/tour" 2>"$folder/log" &
  SANDBOX=$!
  # shellcheck disable=SC2064  # the folder and the process of now
  trap "kill $SANDBOX; wait $SANDBOX; rm -r '$folder'" EXIT
  for _ in {1..200}; do
    grep -q 'stand-in for Entra on' "$folder/tour" && break
    sleep 0.05
  done
  read -r API_URL ENTRA_URL < <(sed -nE 's/.*the API on ([^,]+), a stand-in for Entra on (.*)/\1 \2/p' "$folder/tour")
  if [[ -z ${ENTRA_URL:-} ]]; then
    cat "$folder/log" >&2
    return 1
  fi
  export API_URL ENTRA_URL
}
