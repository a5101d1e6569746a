#!/usr/bin/env bash
# Deletes what setup.sh created, and nothing else. Run ./cleanup.sh --help for usage.
#
# It deletes only objects with the mark of setup.sh. A matching name is not enough. Objects that are already deleted
# are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=src/setup/registration.sh
source src/setup/registration.sh

usage() {
  cat <<'USAGE'
usage: ./cleanup.sh [--dry-run] [--yes] [API_NAME]

Permanently deletes the two registrations and the test users that setup.sh created, and removes its lines from .env.

  API_NAME    the name given to setup.sh; needed only if .env has no lines from setup.sh, as after an interruption
  --yes       do not ask for confirmation
  --dry-run   print the changes without making them
USAGE
}

main() {
  parse_arguments "$@"
  require_tools
  create_work_folder
  sign_in
  find_mark
  find_objects
  if [[ -s $WORK/purge ]]; then
    confirm
    delete_all
    purge_all
  else
    say "Nothing to delete: this tenant has no objects with the mark $MARK."
  fi
  clean_env
}

# Sets API_NAME, YES and DRY_RUN.
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
        if [[ -n $API_NAME ]]; then
          usage >&2
          exit 2
        fi
        validate_name "$argument"
        API_NAME=$argument
        ;;
    esac
  done
}

# Sets MARK, from the API_NAME argument or from .env, and KEEP_ENV. There is no default: the mark of the default name
# may belong to another clone.
find_mark() {
  local recorded
  KEEP_ENV=''
  recorded=$(env_note "$ENV_MARK")
  if [[ -n $API_NAME ]]; then
    MARK=$(mark_of "$API_NAME")
    if [[ -n $recorded && $recorded != "$MARK" ]]; then
      KEEP_ENV=yes
    fi
  elif [[ -n $recorded ]]; then
    MARK=$recorded
  else
    die "$ENV_FILE has no lines from setup.sh. If setup.sh was interrupted, add the name of the API, for example:" \
      "${0##*/} tenant-tasks-api. Nothing was changed."
  fi
}

# Writes `path<tab>label` of each existing object to $WORK/alive, and `id<tab>label` of each object to purge to
# $WORK/purge. Names can contain line breaks and tabs, which @tsv escapes. Registrations are purged last: after an
# interruption, the next run finds service principals by them. Sets GRAPH_RESPONSE.
find_objects() {
  local role kind deleted_apps marked client
  : >"$WORK/alive"
  : >"$WORK/purge"
  : >"$WORK/purge-last"
  : >"$WORK/clients"
  graph_list "/directory/deletedItems/microsoft.graph.application?\$select=id,appId,uniqueName,displayName"
  deleted_apps=$GRAPH_RESPONSE
  for role in $(role_names); do
    if find_user "$(upn_of "$role")" && has_user_mark; then
      list_alive users 'the user' userPrincipalName purge
    fi
  done
  for kind in spa api; do
    if find_application '' "$MARK.$kind"; then
      list_alive applications 'the registration' displayName purge-last
      client=$(guid_of appId <<<"$GRAPH_RESPONSE")
      jq '.appId' <<<"$GRAPH_RESPONSE" >>"$WORK/clients"
      # Deleting the application also deletes its service principal, but purging does not include it.
      if graph_read "/servicePrincipals(appId='$client')?\$select=id,displayName"; then
        list_purge 'the service principal of' displayName purge <<<"$GRAPH_RESPONSE"
      fi
    fi
    marked=$(jq -c --arg mark "$MARK.$kind" '.[] | select(.uniqueName == $mark)' <<<"$deleted_apps")
    list_purge 'the registration' displayName purge-last <<<"$marked"
    jq '.appId' <<<"$marked" >>"$WORK/clients"
  done
  graph_list "/directory/deletedItems/microsoft.graph.user?\$select=id,userPrincipalName,department"
  jq -c --arg mark "$MARK" '.[] | select(.department == $mark)' <<<"$GRAPH_RESPONSE" |
    list_purge 'the user' userPrincipalName purge
  graph_list "/directory/deletedItems/microsoft.graph.servicePrincipal?\$select=id,appId,displayName"
  jq -c --slurpfile clients "$WORK/clients" '.[] | select(.appId as $id | any($clients[]; . == $id))' \
    <<<"$GRAPH_RESPONSE" | list_purge 'the service principal of' displayName purge
  cat "$WORK/purge-last" >>"$WORK/purge"
}

# list_alive COLLECTION TYPE NAME_FIELD PURGE_FILE: adds the object in GRAPH_RESPONSE to both lists.
list_alive() {
  jq -r --arg path "/$1" --arg type "$2" --arg name "$3" '["\($path)/\(.id)", "\($type) \(.[$name])"] | @tsv' \
    <<<"$GRAPH_RESPONSE" >>"$WORK/alive"
  list_purge "$2" "$3" "$4" <<<"$GRAPH_RESPONSE"
}

# list_purge TYPE NAME_FIELD PURGE_FILE: adds the objects on standard input.
list_purge() {
  jq -r --arg type "$1" --arg name "$2" 'select(.id != null) | [.id, "\($type) \(.[$name])"] | @tsv' >>"$WORK/$3"
}

confirm() {
  local label answer
  say 'These objects have the mark of setup.sh and will be deleted permanently:'
  # In other locales, sort -u can drop one of two different names.
  cut -f 2 "$WORK/alive" "$WORK/purge" | LC_ALL=C sort -u | while IFS= read -r label; do
    say "  $label"
  done
  [[ -z $YES && -z $DRY_RUN ]] || return 0
  [[ -t 0 ]] || die 'cannot ask for confirmation: standard input is not a terminal. Add --yes. Nothing was changed.'
  read -r -p 'Continue? [y/N] ' answer
  [[ $answer == [yY]* ]] || die 'canceled. Nothing was changed.'
}

delete_all() {
  local path label
  while IFS=$'\t' read -r path label; do
    graph_write "delete $label" delete "$path"
  done <"$WORK/alive"
}

purge_all() {
  local id label
  while IFS=$'\t' read -r id label; do
    if [[ -n $DRY_RUN ]] || is_deleted "$id"; then
      graph_write "purge $label" delete "/directory/deletedItems/$id" ||
        say "not purged: $label. It stays among the deleted objects for 30 days unless an administrator purges it."
    fi
  done <"$WORK/purge"
}

# is_deleted ID: waits a few seconds for the object to appear among the deleted objects.
is_deleted() {
  local try=1
  until graph_read "/directory/deletedItems/$1"; do
    ((try < 5)) || return 1
    graph_pause "$try"
    try=$((try + 1))
  done
}

# Removes the lines of setup.sh. Keeps an allow-list that was extended and lines that the operator added to the block.
clean_env() {
  local kept tenants
  if [[ -n $KEEP_ENV ]]; then
    say "$ENV_FILE belongs to another registration and was not changed."
    return 0
  fi
  [[ -n $(env_note "$ENV_MARK") ]] || return 0
  tenants=$(env_setting ALLOWED_TENANT_IDS inside || true)
  kept=$(
    [[ -z $tenants || $tenants == "$TENANT_ID" ]] || printf '%s\n' "ALLOWED_TENANT_IDS=$tenants"
    env_operator_lines
  )
  if [[ -n $DRY_RUN ]]; then
    say "would remove the lines of setup.sh from $ENV_FILE"
  else
    env_replace "$kept"
    say "done: remove the lines of setup.sh from $ENV_FILE"
  fi
}

main "$@"
