#!/usr/bin/env bash
# Runs a command with the real Azure CLI and the mock of Microsoft Graph. The mock is the HTTPS proxy of the command. It
# answers requests to Microsoft's hosts itself and rejects all others, so no request leaves the machine.
#
#   tests/azure/run_with_mock.sh OPTION... -- COMMAND [ARGUMENT...]
#
#   --az FILE                   the Azure CLI
#   --home FOLDER               certificates and the sign-in, which later runs reuse
#   --seed FILE                 the first content of the directory
#   --state FILE                the state of the mock: read if it exists, written at the end
#   --az-log FILE               the command lines of all calls of az are appended
#   --login user|none|expired   the sign-in of az (default: user). `expired` needs an earlier run with `user`.
#   --set NAME=VALUE            a setting of graph/directory.py
#   --fault JSON                a fault, see graph/faults.py
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

home='' login=user options=()
export AZ='' AZ_LOG=/dev/null
while [[ $1 != -- ]]; do
  case $1 in
    --az) AZ=$2 ;;
    --home) home=$2 ;;
    --az-log) AZ_LOG=$2 ;;
    --login) login=$2 ;;
    --seed | --state | --set | --fault) options+=("$1" "$2") ;;
    *)
      echo "unknown option: $1" >&2
      exit 2
      ;;
  esac
  shift 2
done
shift

# Sets MOCK_PID and the variables that make the Azure CLI and curl use the mock.
start_mock() {
  local certificates=$home/certificates proxy
  mkdir -p "$home"
  chmod 700 "$home"
  export PYTHONDONTWRITEBYTECODE=1
  if [[ -z $(find "$certificates/leaf.pem" -mtime -300 2>/dev/null) ]]; then
    PYTHONPATH=$here python3 -m graph --create-certificates "$certificates"
  fi
  if [[ $login == expired ]]; then
    options+=(--set token_error=expired)
  fi
  PYTHONPATH=$here python3 -m graph --certificates "$certificates" --port-file "$work/port" "${options[@]}" &
  MOCK_PID=$!
  until [[ -e $work/port ]]; do
    kill -0 "$MOCK_PID" || exit 70
    sleep 0.05
  done
  proxy=http://127.0.0.1:$(<"$work/port")
  export HTTPS_PROXY=$proxy https_proxy=$proxy
  unset NO_PROXY no_proxy
  export REQUESTS_CA_BUNDLE=$certificates/ca.pem CURL_CA_BUNDLE=$certificates/ca.pem
}

# Runs `az login` the first time. Later runs copy its result, which is valid for a day.
sign_in() {
  local saved=$home/login
  export AZURE_CONFIG_DIR=$work/azure AZURE_CORE_COLLECT_TELEMETRY=false AZURE_CORE_LOGIN_EXPERIENCE_V2=false
  mkdir "$AZURE_CONFIG_DIR"
  [[ $login != none ]] || return 0
  if [[ -z $(find "$saved/azureProfile.json" -mmin -720 2>/dev/null) ]]; then
    rm -rf "$saved" "$saved.new"
    AZURE_CONFIG_DIR=$saved.new "$AZ" login --use-device-code --allow-no-subscriptions --output none
    # This call stores an access token for Graph.
    AZURE_CONFIG_DIR=$saved.new "$AZ" rest --uri https://graph.microsoft.com/v1.0/organization --output none
    mv "$saved.new" "$saved"
  fi
  cp -r "$saved/." "$AZURE_CONFIG_DIR"
  if [[ $login == expired ]]; then
    jq '.AccessToken = {}' "$saved/msal_token_cache.json" >"$AZURE_CONFIG_DIR/msal_token_cache.json"
  fi
}

# Puts an `az` into the search path that logs its command line.
install_az() {
  mkdir "$work/bin"
  cat >"$work/bin/az" <<'AZ'
#!/usr/bin/env bash
printf '%s\n' "$*" >>"$AZ_LOG"
exec "$AZ" "$@"
AZ
  chmod 755 "$work/bin/az"
  PATH=$work/bin:$PATH
}

# The mock writes the state when it stops.
stop() {
  kill "$MOCK_PID" 2>/dev/null || true
  wait "$MOCK_PID" || true
  rm -rf "$work"
}

work=$(mktemp -d)
trap stop EXIT
MOCK_PID=''
start_mock
sign_in
install_az
"$@"
