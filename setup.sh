#!/usr/bin/env bash
# Registers the service in Entra and writes .env. Run ./setup.sh --help for usage.
#
# Each step reads the current state and writes only what is missing. The script can therefore be run again at any
# time, also after an interruption. It writes .env last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=src/setup/registration.sh
source src/setup/registration.sh
# shellcheck source=src/setup/checks.sh
source src/setup/checks.sh
# shellcheck source=src/setup/test_users.sh
source src/setup/test_users.sh

usage() {
  cat <<'USAGE'
usage: ./setup.sh [--dry-run] [--no-test-users] [API_NAME [SPA_NAME]]

Registers the API and its single-page app in the Entra tenant that az is signed in to, creates three test users
with one role each, and writes .env. It can be run again at any time: it adds what is missing and keeps the rest.

  API_NAME          name of the API (default: tenant-tasks-api); it cannot be changed later
  SPA_NAME          name of the single-page app (default: API_NAME with -spa in place of -api)
  --no-test-users   do not create test users
  --dry-run         print the changes without making them
USAGE
}

main() {
  parse_arguments "$@"
  require_tools
  create_work_folder
  sign_in
  find_registrations
  check_values
  check_permissions
  register_api
  register_spa
  link_api_to_spa
  create_principals
  if [[ -n $TEST_USERS ]]; then
    create_test_users
  fi
  write_env
  print_summary
}

# Sets API_NAME, SPA_NAME, TEST_USERS and DRY_RUN.
parse_arguments() {
  API_NAME='' SPA_NAME='' TEST_USERS=yes
  local argument
  for argument; do
    case $argument in
      -h | --help)
        usage
        exit 0
        ;;
      --dry-run) DRY_RUN=yes ;;
      --no-test-users) TEST_USERS='' ;;
      -*)
        usage >&2
        exit 2
        ;;
      *)
        validate_name "$argument"
        if [[ -z $API_NAME ]]; then
          API_NAME=$argument
        elif [[ -z $SPA_NAME ]]; then
          SPA_NAME=$argument
        else
          usage >&2
          exit 2
        fi
        ;;
    esac
  done
}

# Sets API and SPA to the existing registrations ({} if there are none), MARK, RECORDED_API, DELETED_SPA, API_NAME and
# SPA_NAME.
find_registrations() {
  local recorded
  MARK=$(env_note "$ENV_MARK")
  if [[ -n $MARK && -n $API_NAME && $MARK != "$(mark_of "$API_NAME")" ]]; then
    die "$ENV_FILE belongs to ${MARK#"$(mark_of '')"}. Use another clone to set up $API_NAME," \
      'or run ./cleanup.sh first.'
  fi
  MARK=${MARK:-$(mark_of "${API_NAME:-tenant-tasks-api}")}
  API='{}' SPA='{}' DELETED_SPA=''
  RECORDED_API=$(env_setting AZURE_API_CLIENT_ID inside || true)
  if find_application "$RECORDED_API" "$MARK.api"; then
    API=$GRAPH_RESPONSE
    if [[ -z $RECORDED_API ]]; then
      say "found the API of an earlier run: $MARK"
    fi
  fi
  recorded=$(env_setting AZURE_API_CLIENT_ID outside || true)
  if [[ -n $recorded ]] && ! same_guid "$recorded" "$(jq -r '.appId' <<<"$API")"; then
    die "AZURE_API_CLIENT_ID in $ENV_FILE is not a registration that setup.sh created. Remove the line." \
      'setup.sh adds its own.'
  fi
  API_NAME=${API_NAME:-$(jq -r --arg name "${MARK#"$(mark_of '')"}" '.displayName // $name' <<<"$API")}

  recorded=$(env_setting AZURE_SPA_CLIENT_ID inside || true)
  if find_application "$recorded" "$MARK.spa"; then
    SPA=$GRAPH_RESPONSE
  fi
  if ! same_guid "$recorded" "$(jq -r '.appId' <<<"$SPA")"; then
    DELETED_SPA=$recorded
  fi
  SPA_NAME=${SPA_NAME:-$(jq -r --arg name "${API_NAME%-api}-spa" '.displayName // $name' <<<"$SPA")}
}

# Sets API and API_ID.
register_api() {
  local missing
  if [[ $API == '{}' ]]; then
    missing=$(missing_of_api '')
    create_application "register the API $API_NAME" "$MARK.api" "$missing"
    API=$GRAPH_RESPONSE
  fi
  API_ID=$(guid_of appId <<<"$API")
}

# Sets SPA and SPA_ID.
register_spa() {
  local missing
  find_stale_apis
  missing=$(missing_of_spa)
  if [[ $SPA == '{}' ]]; then
    create_application "register the single-page app $SPA_NAME" "$MARK.spa" "$missing"
    SPA=$GRAPH_RESPONSE
  else
    update_application "the single-page app $SPA_NAME" "$SPA" "$missing"
  fi
  SPA_ID=$(guid_of appId <<<"$SPA")
}

# Sets STALE_APIS, a JSON array of client IDs: APIs that the single-page app must no longer require. Consent fails with
# AADSTS650052 while the app requires a deleted API. The API in .env is removed if it was deleted. An API that is
# required with exactly our scope is removed if it was deleted, or if .env does not show which APIs the operator added.
find_stale_apis() {
  local required client
  STALE_APIS='[]'
  while IFS= read -r required; do
    client=$(guid_of resourceAppId <<<"$required")
    if [[ -z $RECORDED_API ]] || ! graph_read "/applications(appId='$client')?\$select=id"; then
      say "found an API that the single-page app no longer needs: $client"
      STALE_APIS=$(jq -c --arg client "$client" '. + [$client]' <<<"$STALE_APIS")
    fi
  done < <(jq -c --arg api "$API_ID" --arg recorded "$RECORDED_API" --arg scope_id "$SCOPE_ID" '
    .requiredResourceAccess[]? | select(.resourceAppId != $api and (.resourceAppId == ($recorded | ascii_downcase)
      or .resourceAccess == [{id: $scope_id, type: "Scope"}]))' <<<"$SPA")
}

# Adds the identifier URI and the single-page app to the API's registration, so that one consent covers both apps.
link_api_to_spa() {
  local missing
  missing=$(missing_of_api "$SPA_ID")
  update_application "the API $API_NAME" "$API" "$missing"
}

missing_of_api() {
  jq -c --arg name "$API_NAME" --arg spa "$1" --arg deleted_spa "$DELETED_SPA" --arg scope_id "$SCOPE_ID" \
    --slurpfile roles "$ROLES_FILE" -f src/setup/api.jq <<<"$API"
}

missing_of_spa() {
  jq -c --arg name "$SPA_NAME" --arg api "$API_ID" --arg scope_id "$SCOPE_ID" --argjson stale "$STALE_APIS" \
    -f src/setup/spa.jq <<<"$SPA"
}

# create_application ACTION MARK BODY: sets GRAPH_RESPONSE to the registration. The mark is the key, so that a retry
# does not create a second registration.
create_application() {
  graph_write "$1" patch "/applications(uniqueName='$2')" "$3" 'Prefer=create-if-missing'
  if [[ -z $GRAPH_RESPONSE ]]; then
    # The registration existed already. Graph then returns an empty body.
    graph_wait_for "$(application_path "$2")"
  fi
}

# update_application LABEL REGISTRATION MISSING
update_application() {
  local id
  id=$(guid_of id <<<"$2")
  if [[ $3 == '{}' ]]; then
    say "up to date: $1"
  else
    graph_write "update $1 ($(jq -r 'keys | join(", ")' <<<"$3"))" \
      patch "/applications/$id" "$3"
  fi
}

# Sets API_PRINCIPAL.
create_principals() {
  ensure_principal "$SPA_ID" "$SPA_NAME"
  ensure_principal "$API_ID" "$API_NAME"
  API_PRINCIPAL=$(guid_of id <<<"$GRAPH_RESPONSE")
}

# ensure_principal CLIENT_ID NAME: sets GRAPH_RESPONSE to the service principal. Users are assigned roles on it.
ensure_principal() {
  local path="/servicePrincipals(appId='$1')?\$select=id" body
  if graph_read "$path"; then
    say "up to date: the service principal of $2"
    return 0
  fi
  # This tag makes the Entra admin center list it under Enterprise applications.
  body="{\"appId\":\"$1\",\"tags\":[\"WindowsAzureActiveDirectoryIntegratedApp\"]}"
  graph_write "create the service principal of $2" post /servicePrincipals "$body" || graph_wait_for "$path"
}

write_env() {
  local block
  block=$(env_block)
  if [[ -n $DRY_RUN ]]; then
    printf '\nwould write to %s:\n%s\n' "$ENV_FILE" "${block//$PLACEHOLDER_ID/(new)}"
  else
    env_replace "$block"
  fi
}

env_block() {
  local name value printed=${PRINTED_USERS:-$(env_note "$ENV_USERS")}
  printf '%s\n' "$ENV_BEGIN" "$ENV_MARK$MARK"
  for name in $ENV_NAMES; do
    case $name in
      AZURE_API_CLIENT_ID) value=$API_ID ;;
      AZURE_SPA_CLIENT_ID) value=$SPA_ID ;;
      AZURE_HOME_TENANT_ID) value=$TENANT_ID ;;
      AZURE_AUTHORITY_HOST)
        value=$AUTHORITY
        [[ $value != https://login.microsoftonline.com ]] || continue
        ;;
      ALLOWED_TENANT_IDS)
        # The operator's value wins: a line outside the block, even an empty one, or a longer list inside it.
        if env_setting "$name" outside >/dev/null; then
          continue
        fi
        value=$(env_setting "$name" inside || printf '%s\n' "$TENANT_ID")
        ;;
    esac
    printf '%s\n' "$name=$value"
  done
  env_operator_lines
  [[ -z $printed ]] || printf '%s\n' "$ENV_USERS${printed# }"
  printf '%s\n' "$ENV_END"
}

print_summary() {
  local uri
  [[ -z $DRY_RUN ]] || return 0
  uri=$(app_uri)
  cat <<SUMMARY

Settings of the single-page app:
  client ID      $SPA_ID
  authority      $AUTHORITY/organizations
  scope          api://$API_ID/access_as_user
  redirect URI   $(say "$uri")

To add another tenant:
  1. Its administrator opens this address and accepts. This adds both apps to the tenant:
     $AUTHORITY/organizations/adminconsent?client_id=$SPA_ID&redirect_uri=$(jq -Rr @uri <<<"$uri")
     The page that follows does not have to load. Its address ends in tenant= and the tenant ID.
  2. Allow the tenant: cargo run --release -- tenants add TENANT_ID. A running service reloads the list.
  3. Its administrator assigns roles to users: Entra admin center, Enterprise applications, $(say "$API_NAME"),
     Users and groups. Role assignments in your tenant do not apply there.

$ENV_FILE contains the settings of the service. Start the service: cargo run --release
SUMMARY
}

# Prints the redirect URI where the app runs: one with https that the operator added, or the one for development.
# After the consent, Entra redirects to it. The request names it, because /docs has a redirect URI too.
app_uri() {
  jq -r 'first(.spa.redirectUris[]? | select(test("^https://[^/?#]+/?$"))) // "http://localhost:3000"' <<<"$SPA"
}

main "$@"
