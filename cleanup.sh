#!/usr/bin/env bash
# Takes away what setup.sh made, and nothing else: see usage below, or ./cleanup.sh --help.
#
# Ours is what bears setup.sh's mark: a name alone proves nothing. What is gone already counts as done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=src/setup/registration.sh
source src/setup/registration.sh

usage() {
  cat <<'USAGE'
usage: ./cleanup.sh [--dry-run] [--yes] [API_NAME]

Deletes for good the two registrations and the test users that setup.sh made, and takes its lines out of .env.

  API_NAME    as given to setup.sh; needed only where .env has no lines of it, after an interruption
  --yes       do not ask
  --dry-run   only print what would be done
USAGE
}

main() {
  parse_arguments "$@"
  require_tools
  graph_open
  sign_in
  find_mark
  find_ours
  if [[ -s $WORK/purge ]]; then
    confirm
    delete_all
    purge_all
  else
    say "Nothing that bears the mark $MARK is in this tenant."
  fi
  clean_env
}

parse_arguments() {
  API_NAME='' YES=''
  local argument
  for argument; do
    case $argument in
      -h | --help)
        usage
        exit 0
        ;;
      --dry-run) DRY_RUN=yes ;;
      --yes) YES=yes ;;
      -*)
        usage >&2
        exit 2
        ;;
      *)
        [[ -z $API_NAME ]] || {
          usage >&2
          exit 2
        }
        parse_name "$argument"
        API_NAME=$argument
        ;;
    esac
  done
}

# By the mark in .env, or by the one that follows from a name given. With neither, nothing is ours to delete:
# the default name's mark could be another clone's.
find_mark() {
  KEEP_ENV=''
  MARK=$(env_note "$ENV_MARK")
  if [[ -n $API_NAME ]]; then
    [[ -z $MARK || $MARK == "$(mark_of "$API_NAME")" ]] || KEEP_ENV=yes
    MARK=$(mark_of "$API_NAME")
  elif [[ -z $MARK ]]; then
    die "$ENV_FILE does not say what setup.sh made. If it was interrupted, add the API's name: ${0##*/}" \
      'tenant-tasks-api, say. Nothing was changed.'
  fi
}

# Writes `path<tab>what` of what is there into $WORK/alive, and `id<tab>what` of all that is to be purged, in
# order, into $WORK/purge. Registrations come last: as long as they are there, the next run finds their service
# principals by them.
# shellcheck disable=SC2016 # the conditions are jq's
find_ours() {
  local role kind clients=''
  : >"$WORK/alive"
  : >"$WORK/purge"
  : >"$WORK/purge-last"
  graph_list "/directory/deletedItems/microsoft.graph.application?\$select=id,appId,uniqueName,displayName"
  DELETED_APPS=$GRAPH_ANSWER
  for role in $ROLES; do
    if find_user "$(upn_of "$role")" && user_is_ours; then
      note_alive users 'the user' userPrincipalName purge
    fi
  done
  for kind in spa api; do
    if find_application '' "$MARK.$kind"; then
      note_alive applications 'the registration' displayName purge-last
      clients="$clients $(jq -r '.appId' <<<"$GRAPH_ANSWER")"
      # It goes with its application, but is purged on its own.
      if graph_read "/servicePrincipals(appId='${clients##* }')?\$select=id,displayName"; then
        jq -r '"\(.id)\tthe service principal of \(.displayName)"' <<<"$GRAPH_ANSWER" >>"$WORK/purge"
      fi
    fi
    note_deleted "$DELETED_APPS" '.uniqueName == $mark' "$MARK.$kind" 'the registration \(.displayName)' purge-last
    clients="$clients $(jq -r --arg mark "$MARK.$kind" '.[] | select(.uniqueName == $mark) | .appId' <<<"$DELETED_APPS")"
  done
  graph_list "/directory/deletedItems/microsoft.graph.user?\$select=id,userPrincipalName,department"
  note_deleted "$GRAPH_ANSWER" '.department == $mark' "$MARK" 'the user \(.userPrincipalName)' purge
  graph_list "/directory/deletedItems/microsoft.graph.servicePrincipal?\$select=id,appId,displayName"
  note_deleted "$GRAPH_ANSWER" '.appId as $id | $mark | split(" ") | any(. == $id)' "$clients" \
    'the service principal of \(.displayName)' purge
  cat "$WORK/purge-last" >>"$WORK/purge"
}

# note_alive COLLECTION WHAT NAME FILE: GRAPH_ANSWER is ours.
note_alive() {
  jq -r --arg path "/$1" --arg what "$2" "\"\\(\$path)/\\(.id)\\t\\(\$what) \\(.$3)\"" <<<"$GRAPH_ANSWER" >>"$WORK/alive"
  jq -r --arg what "$2" "\"\\(.id)\\t\\(\$what) \\(.$3)\"" <<<"$GRAPH_ANSWER" >>"$WORK/$4"
}

# note_deleted ROWS CONDITION MARK WHAT FILE: those of the rows that are ours; WHAT may use a row's properties.
note_deleted() {
  jq -r --arg mark "$3" ".[] | select(.id != null and ($2)) | \"\\(.id)\\t$4\"" <<<"$1" >>"$WORK/$5"
}

confirm() {
  local answer
  say 'To be deleted for good, by the mark of setup.sh:'
  cut -f 2 "$WORK/alive" "$WORK/purge" | sort -u | sed 's/^/  /'
  [[ -z $YES && -z $DRY_RUN ]] || return 0
  [[ -t 0 ]] || die 'nothing was changed: there is nobody to ask here, so add --yes'
  read -r -p 'Go on? [y/N] ' answer
  [[ $answer == [yY]* ]] || die 'nothing was changed'
}

delete_all() {
  local path what
  while IFS=$'\t' read -r path what; do
    graph_write "delete $what" delete "$path"
  done <"$WORK/alive"
}

purge_all() {
  local id what
  while IFS=$'\t' read -r id what; do
    if [[ -n $DRY_RUN ]] || is_deleted "$id"; then
      graph_write "purge $what" delete "/directory/deletedItems/$id" ||
        say "left among the deleted, for an administrator or the 30 days after which it goes by itself: $what"
    fi
  done <"$WORK/purge"
}

# is_deleted ID: waits a little for it to appear among the deleted.
is_deleted() {
  local try=1
  until graph_read "/directory/deletedItems/$1"; do
    ((try < 5)) || return 1
    graph_pause "$try"
    try=$((try + 1))
  done
}

# What setup.sh wrote goes; an allow-list that has grown since, and lines of others in the block, stay.
clean_env() {
  local kept tenants
  [[ -z $KEEP_ENV ]] || {
    say "$ENV_FILE is of another registration, and stays as it is."
    return 0
  }
  [[ -n $(env_note "$ENV_MARK") ]] || return 0
  tenants=$(env_setting ALLOWED_TENANT_IDS in || true)
  kept=$(
    [[ -z $tenants || $tenants == "$TENANT_ID" ]] || say "ALLOWED_TENANT_IDS=$tenants"
    env_foreign
  )
  if [[ -n $DRY_RUN ]]; then
    say "would take setup.sh's lines out of $ENV_FILE"
  else
    env_replace "$kept"
    say "done: setup.sh's lines are out of $ENV_FILE"
  fi
}

main "$@"
