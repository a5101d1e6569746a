#!/usr/bin/env bash
# Takes away what setup.sh made, and nothing else: see usage below, or ./cleanup.sh --help.
#
# Ours is what bears setup.sh's mark: a name alone proves nothing. What is gone already counts as done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=src/azure/graph.sh
source src/azure/graph.sh
# shellcheck source=src/azure/env_file.sh
source src/azure/env_file.sh
# shellcheck source=src/azure/registration.sh
source src/azure/registration.sh

usage() {
  cat <<'USAGE'
usage: ./cleanup.sh [--dry-run] [--yes] [API_NAME]

Deletes for good the two registrations and the test users that setup.sh made, and takes its lines out of .env.

  API_NAME    as given to setup.sh; needed only if .env does not say which registration it is
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
    say 'Nothing of setup.sh is in this tenant.'
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

# The mark is read off the recorded registration, alive or deleted; without a record it follows from the name.
# A record of what is gone leads nowhere: the default name might be another team's.
find_mark() {
  local recorded
  KEEP_ENV=''
  recorded=$(env_setting AZURE_API_CLIENT_ID in || true)
  graph_list "/directory/deletedItems/microsoft.graph.application?\$select=id,appId,uniqueName,displayName"
  DELETED_APPS=$GRAPH_ANSWER
  MARK=''
  if [[ -n $recorded ]]; then
    if find_application "$recorded" ''; then
      MARK=$(jq -r '.uniqueName | rtrimstr(".api")' <<<"$GRAPH_ANSWER")
    else
      MARK=$(jq -r --arg id "$recorded" '
        first(.[] | select(.appId == $id) | .uniqueName // "" | select(startswith("tenant-tasks-setup.")))
        // "" | rtrimstr(".api")' <<<"$DELETED_APPS")
    fi
  fi
  if [[ -n $API_NAME ]]; then
    [[ -z $MARK || $MARK == "$(mark_of "$API_NAME")" ]] || KEEP_ENV=yes
    MARK=$(mark_of "$API_NAME")
  elif [[ -z $recorded ]]; then
    MARK=$(mark_of tenant-tasks-api)
  fi
}

# Writes `path<tab>what` of what is there into $WORK/alive, and `id<tab>what` of all that is to be purged, in
# order, into $WORK/purge. The API comes last: as long as it is there, the next run finds the rest by it.
# shellcheck disable=SC2016 # the conditions are jq's
find_ours() {
  local role kind clients=''
  : >"$WORK/alive"
  : >"$WORK/purge"
  : >"$WORK/purge-last"
  [[ -n $MARK ]] || return 0
  for role in $ROLES; do
    if find_user "$(upn_of "$role")" && user_is_ours; then
      note_alive users 'the user' userPrincipalName purge
    fi
  done
  for kind in spa api; do
    if graph_read "/applications(uniqueName='$MARK.$kind')?\$select=$FIELDS"; then
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
      graph_write "purge $what" delete "/directory/deletedItems/$id"
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
  grep -qxF "$ENV_BEGIN" "$ENV_FILE" 2>/dev/null || return 0
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
