# shellcheck shell=bash disable=SC2034 # the scripts that source this file use its variables
# Calls Microsoft Graph with `az rest` and retries: replicas lag, requests are throttled, and a call may fail although
# Graph has applied it.
#
# A write is repeated until Graph confirms it. Each write must therefore be idempotent: it sets a state, or it creates
# an object with a key that Graph keeps unique. Compatible with bash 3.2, the version of macOS.

# Seconds to wait after the first failure. The wait doubles after each failure, up to 30 s; 12 tries take about 4 min.
GRAPH_RETRY_SECONDS=${GRAPH_RETRY_SECONDS:-1}
GRAPH_TRIES=12

GRAPH=https://graph.microsoft.com/v1.0
GRAPH_RESPONSE='' # the body of the last response
GRAPH_ERROR=''    # the kind of the last error, see error_kind
GRAPH_CHANGES=0   # the number of writes that Graph has confirmed
DRY_RUN=''        # if not empty, writes are printed and not sent

# The ID of an object that a dry run did not create. It is never looked up.
PLACEHOLDER_ID=00000000-0000-0000-0000-000000000000

# Regular expressions: an ID of Graph, and the paths of DELETE requests. The scripts delete only applications and
# users, and purge deleted objects.
GUID='[[:xdigit:]]{8}(-[[:xdigit:]]{4}){3}-[[:xdigit:]]{12}'
DELETE_PATH="^/(applications|users|directory/deletedItems)/$GUID\$"

# say TEXT: prints one line. The text can contain names and messages from Graph. Line breaks, control characters and
# invisible format characters are replaced, because they can change what the terminal shows.
say() { printf '%s' "$*" | jq -Rrs 'gsub("[\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]"; "\ufffd")'; }

die() {
  say "${0##*/}: $*" >&2
  exit 1
}

# guid_of FIELD: prints this field of the JSON object on standard input. Fails if it is not a GUID. The scripts write
# IDs to paths, to request bodies and to .env.
guid_of() {
  local value
  value=$(jq -r --arg field "$1" '.[$field]')
  [[ $value =~ ^$GUID$ ]] || die "expected a GUID in the field $1, but found: $value"
  printf '%s\n' "$value"
}

# Sets WORK to a temporary folder that only this user can read, because request bodies can contain a password. The
# folder is deleted when the script exits.
create_work_folder() {
  umask 077
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/tenant-tasks.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# graph_read PATH: sets GRAPH_RESPONSE. Fails if the object does not exist or a replica does not have it yet.
graph_read() {
  local try=1
  GRAPH_RESPONSE=''
  case $1 in *"$PLACEHOLDER_ID"*) return 1 ;; esac
  until graph_once get "$1"; do
    case $GRAPH_ERROR in
      not_found | purge_denied) return 1 ;;
      transient) graph_pause "$try" ;;
      *) graph_die "cannot read ${1%%\?*}" ;;
    esac
    try=$((try + 1))
  done
}

# graph_wait_for PATH: sets GRAPH_RESPONSE. Retries until the replicas have the object, which must exist.
graph_wait_for() {
  local try=1
  until graph_read "$1"; do
    graph_pause "$try"
    try=$((try + 1))
  done
}

# graph_list PATH: sets GRAPH_RESPONSE to the array of the rows of all pages. It is empty if the parent does not exist.
graph_list() {
  local next=$1
  : >"$WORK/pages"
  while [[ -n $next ]] && graph_read "$next"; do
    printf '%s\n' "$GRAPH_RESPONSE" >>"$WORK/pages"
    next=$(jq -r '."@odata.nextLink" // empty' <<<"$GRAPH_RESPONSE")
    case $next in '' | "$GRAPH"/*) ;; *) die "Graph returned a next-page link to another address: $next" ;; esac
  done
  GRAPH_RESPONSE=$(jq -cs '[.[].value[]]' "$WORK/pages")
}

# graph_write ACTION METHOD PATH [BODY [HEADER]]: sets GRAPH_RESPONSE. Fails only if the object of a POST exists
# already or if the account is not allowed to purge a deleted object.
graph_write() {
  local action=$1 try=1
  shift
  if [[ -n $DRY_RUN ]]; then
    say "would $action"
    GRAPH_RESPONSE="{\"id\":\"$PLACEHOLDER_ID\",\"appId\":\"$PLACEHOLDER_ID\"}"
    return 0
  fi
  until graph_once "$@"; do
    case $1:$GRAPH_ERROR in
      delete:not_found) break ;;
      post:conflict | post:exists | delete:purge_denied) return 1 ;;
      *:transient | *:not_replicated | *:not_found | *:conflict) graph_pause "$try" ;;
      *) graph_die "cannot $action" ;;
    esac
    try=$((try + 1))
  done
  GRAPH_CHANGES=$((GRAPH_CHANGES + 1))
  say "done: $action"
}

# graph_once METHOD PATH [BODY [HEADER]]: makes one call without a retry. Sets GRAPH_RESPONSE and GRAPH_ERROR.
graph_once() {
  local method=$1 uri=$2 body=${3-} header=${4-} error
  [[ $method != delete || $uri =~ $DELETE_PATH ]] ||
    die "not deleted: $uri is not the path of an application, a user or a deleted object"
  case $uri in /*) uri=$GRAPH$uri ;; esac
  set -- --method "$method" --uri "$uri" --output json --only-show-errors
  if [[ -n $body ]]; then
    # The body is passed in a file, because every user of the machine can read a command line.
    printf '%s' "$body" >"$WORK/body"
    set -- "$@" --body "@$WORK/body"
  fi
  if [[ -n $header ]]; then
    set -- "$@" --headers "$header"
  fi
  if az rest "$@" >"$WORK/response" 2>"$WORK/error" </dev/null; then
    rm -f "$WORK/body"
    GRAPH_ERROR='' GRAPH_RESPONSE=$(<"$WORK/response")
    return 0
  fi
  rm -f "$WORK/body"
  error=$(<"$WORK/error")
  GRAPH_ERROR=$(error_kind "$error") GRAPH_RESPONSE=$error
  # Only administrators can read and purge deleted objects. The scripts work without that permission.
  case $GRAPH_ERROR:$uri in "forbidden:$GRAPH/directory/deletedItems/"*) GRAPH_ERROR=purge_denied ;; esac
  return 1
}

# error_kind TEXT: prints the kind of error. `az rest` reports neither status nor code, but its error text starts with
# the reason phrase of the status.
error_kind() {
  case $1 in
    *AADSTS* | *'az login'* | *'ERROR: Unauthorized('*) echo signed_out ;;
    *'ERROR: Not Found('*) echo not_found ;;
    *Directory_QuotaExceeded*) echo quota ;;
    *'ERROR: Forbidden('*) echo forbidden ;;
    *'ERROR: Conflict('*) echo conflict ;;
    *'ERROR: Too Many Requests('* | *'ERROR: Request Timeout('* | *'ERROR: Internal Server Error('* | \
      *'ERROR: Bad Gateway('* | *'ERROR: Service Unavailable('* | *'ERROR: Gateway Timeout('*) echo transient ;;
    *'Connection aborted'* | *'Connection reset'* | *'Max retries exceeded'* | *'timed out'*) echo transient ;;
    *NoBackingApplicationObject* | *'does not reference a valid application object'* | \
      *'PreAuthorizedApplication references'* | *'Not a valid reference update'* | \
      *'Permission being assigned was not found'*) echo not_replicated ;;
    *'already exist'*) echo exists ;;
    *) echo other ;;
  esac
}

# graph_pause TRY: waits before the next try, or ends the script after the last one.
graph_pause() {
  local seconds=$GRAPH_RETRY_SECONDS i
  (($1 < GRAPH_TRIES)) || graph_die "gave up after $GRAPH_TRIES tries"
  for ((i = 1; i < $1 && seconds < 30; i++)); do
    seconds=$((seconds * 2))
  done
  ((seconds <= 30)) || seconds=30
  sleep "$seconds"
}

# graph_die MESSAGE: ends the script with the message and the last error of Graph.
graph_die() {
  local message=${GRAPH_RESPONSE#*(} resume='Nothing was changed.'
  message=$(jq -r '.error.message' <<<"${message%)*}" 2>/dev/null) || message=''
  [[ -n $message ]] || message=${GRAPH_RESPONSE:0:400}
  message=${message//$'\n'/ }
  if ((GRAPH_CHANGES > 0)); then
    resume="Run ${0##*/} again to continue."
  fi
  case $GRAPH_ERROR in
    signed_out) die "the sign-in is no longer valid. Run: az login --allow-no-subscriptions. $resume ($message)" ;;
    quota)
      die "$1: the quota of directory objects is exceeded. Deleted objects count until they are purged." \
        "$resume ($message)"
      ;;
    forbidden) die "$1: the signed-in account does not have permission. $resume ($message)" ;;
    *) die "$1. $resume Error from Graph: $message" ;;
  esac
}
