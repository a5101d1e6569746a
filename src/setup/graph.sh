# shellcheck shell=bash disable=SC2034 # what is set here is used by the scripts that source it
# Microsoft Graph through `az rest`, as it is: replicas that lag, throttling, errors after the work was done.
#
# A write is tried until Graph says that it is done. So each one must bear being repeated: it sets a state, or
# what it creates has a key that Graph keeps unique. Works with bash 3.2, the one that macOS has.

# Seconds to wait after the first failure; doubled after each, up to 30. Twelve tries take about four minutes.
GRAPH_RETRY_SECONDS=${GRAPH_RETRY_SECONDS:-1}
GRAPH_TRIES=12

GRAPH=https://graph.microsoft.com/v1.0
GRAPH_ANSWER='' # the body of the last answer
GRAPH_FAULT=''  # why the last call failed, one word
GRAPH_CHANGES=0 # how many writes Graph has confirmed
DRY_RUN=''      # not empty: writes are printed instead

# The id of what a dry run did not create. Nothing has it, so it is never looked up.
UNMADE=00000000-0000-0000-0000-000000000000

say() { printf '%s\n' "$*"; }

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# A folder that only this user can read, gone when the script ends: bodies can hold a password.
graph_open() {
  umask 077
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/tenant-tasks.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# graph_read PATH: succeeds with GRAPH_ANSWER, fails where there is nothing (or a replica does not know it yet).
graph_read() {
  local try=1
  GRAPH_ANSWER=''
  case $1 in *"$UNMADE"*) return 1 ;; esac
  until graph_once get "$1"; do
    case $GRAPH_FAULT in
      missing | withheld) return 1 ;;
      transient) graph_pause "$try" ;;
      *) graph_die "cannot read ${1%%\?*}" ;;
    esac
    try=$((try + 1))
  done
}

# graph_await PATH: reads what is known to be there, once a replica knows it too.
graph_await() {
  local try=1
  until graph_read "$1"; do
    graph_pause "$try"
    try=$((try + 1))
  done
}

# graph_list PATH: GRAPH_ANSWER becomes the array of all pages' rows; empty where the parent is missing.
graph_list() {
  local next=$1
  : >"$WORK/pages"
  while [[ -n $next ]] && graph_read "$next"; do
    printf '%s\n' "$GRAPH_ANSWER" >>"$WORK/pages"
    next=$(jq -r '."@odata.nextLink" // empty' <<<"$GRAPH_ANSWER")
    case $next in '' | "$GRAPH"/*) ;; *) die "Graph's next page is somewhere else: $next" ;; esac
  done
  GRAPH_ANSWER=$(jq -cs '[.[].value[]]' "$WORK/pages")
}

# graph_write WHAT METHOD PATH [BODY [HEADER]]: fails only when a POST's object is there already, and when
# something deleted may not be purged.
graph_write() {
  local what=$1 try=1
  shift
  if [[ -n $DRY_RUN ]]; then
    say "would $what"
    GRAPH_ANSWER="{\"id\":\"$UNMADE\",\"appId\":\"$UNMADE\"}"
    return 0
  fi
  until graph_once "$@"; do
    case $1:$GRAPH_FAULT in
      delete:missing) break ;;
      post:conflict | post:taken | delete:withheld) return 1 ;;
      *:transient | *:lagging | *:missing | *:conflict) graph_pause "$try" ;;
      *) graph_die "cannot $what" ;;
    esac
    try=$((try + 1))
  done
  GRAPH_CHANGES=$((GRAPH_CHANGES + 1))
  say "done: $what"
}

# graph_once METHOD PATH [BODY [HEADER]]: one call.
graph_once() {
  local method=$1 uri=$2 body=${3-} header=${4-} error
  case $uri in /*) uri=$GRAPH$uri ;; esac
  set -- --method "$method" --uri "$uri" --output json --only-show-errors
  if [[ -n $body ]]; then
    # In a file: a command line can be read by everyone on the machine.
    printf '%s' "$body" >"$WORK/body"
    set -- "$@" --body "@$WORK/body"
  fi
  if [[ -n $header ]]; then
    set -- "$@" --headers "$header"
  fi
  if az rest "$@" >"$WORK/answer" 2>"$WORK/error" </dev/null; then
    rm -f "$WORK/body"
    GRAPH_FAULT='' GRAPH_ANSWER=$(<"$WORK/answer")
    return 0
  fi
  rm -f "$WORK/body"
  error=$(<"$WORK/error")
  GRAPH_FAULT=$(graph_fault "$error") GRAPH_ANSWER=$error
  # Only administrators see what is deleted, or purge it: the others can do without.
  case $GRAPH_FAULT:$uri in "forbidden:$GRAPH/directory/deletedItems/"*) GRAPH_FAULT=withheld ;; esac
  return 1
}

# `az rest` gives neither status nor code, but an error that starts with the status' standard phrase.
graph_fault() {
  case $1 in
    *AADSTS* | *'az login'* | *'ERROR: Unauthorized('*) say signed_out ;;
    *'ERROR: Not Found('*) say missing ;;
    *'ERROR: Forbidden('*) say forbidden ;;
    *'ERROR: Conflict('*) say conflict ;;
    *'ERROR: Too Many Requests('* | *'ERROR: Request Timeout('* | *'ERROR: Internal Server Error('* | \
      *'ERROR: Bad Gateway('* | *'ERROR: Service Unavailable('* | *'ERROR: Gateway Timeout('*) say transient ;;
    *'Connection aborted'* | *'Connection reset'* | *'Max retries exceeded'* | *'timed out'*) say transient ;;
    *NoBackingApplicationObject* | *'does not reference a valid application object'* | \
      *'PreAuthorizedApplication references'* | *'Not a valid reference update'* | *'Permission being assigned was not found'*) say lagging ;;
    *'already exist'*) say taken ;;
    *) say wrong ;;
  esac
}

graph_pause() {
  local seconds=$GRAPH_RETRY_SECONDS i
  (($1 < GRAPH_TRIES)) || graph_die "gave up after $GRAPH_TRIES tries"
  for ((i = 1; i < $1 && seconds < 30; i++)); do
    seconds=$((seconds * 2))
  done
  ((seconds <= 30)) || seconds=30
  sleep "$seconds"
}

graph_die() {
  local message=${GRAPH_ANSWER#*(} resume='Nothing was changed.'
  message=$(jq -r '.error.message' <<<"${message%)*}" 2>/dev/null) || message=''
  [[ -n $message ]] || message=${GRAPH_ANSWER:0:400}
  if ((GRAPH_CHANGES > 0)); then
    resume="Run ${0##*/} again: it goes on from here."
  fi
  case $GRAPH_FAULT in
    signed_out) die "the sign-in is no longer good: az login --allow-no-subscriptions. $resume ($message)" ;;
    forbidden) die "$1: your sign-in has no right to. $resume ($message)" ;;
    *) die "$1. $resume Graph says: $message" ;;
  esac
}
