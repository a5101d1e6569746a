#!/usr/bin/env bash
# Registers the service in Entra and writes .env. Run ./setup.sh --help for usage.
#
# Each step reads the current state and writes only what is missing. The script can therefore be run again at any
# time, also after an interruption. It writes .env last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=src/setup/registration.sh
source src/setup/registration.sh

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

# Sets API and SPA to the existing registrations ({} if there are none), MARK, DELETED_SPA, API_NAME and SPA_NAME.
find_registrations() {
  local recorded
  MARK=$(env_note "$ENV_MARK")
  if [[ -n $MARK && -n $API_NAME && $MARK != "$(mark_of "$API_NAME")" ]]; then
    die "$ENV_FILE belongs to ${MARK#"$(mark_of '')"}. Use another clone to set up $API_NAME," \
      'or run ./cleanup.sh first.'
  fi
  MARK=${MARK:-$(mark_of "${API_NAME:-tenant-tasks-api}")}
  API='{}' SPA='{}' DELETED_SPA=''
  recorded=$(env_setting AZURE_API_CLIENT_ID inside || true)
  if find_application "$recorded" "$MARK.api"; then
    API=$GRAPH_RESPONSE
    if [[ -z $recorded ]]; then
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

# Fails before the first change if a later step is known to fail. A permission that cannot be checked here makes
# Graph reject the step itself.
check_permissions() {
  local role upn
  if [[ $ACCOUNT_TYPE == user ]] && has_no_directory_role; then
    if may_not_register; then
      die "$ACCOUNT is not allowed to register apps in this tenant. Ask for the role Application Developer." \
        'Nothing was changed.'
    fi
    if [[ -n $TEST_USERS ]]; then
      die "$ACCOUNT is allowed to register apps in this tenant, but not to create users. Add --no-test-users or sign" \
        'in as an administrator. Nothing was changed.'
    fi
  fi
  [[ -n $TEST_USERS ]] || return 0
  for role in $(role_names); do
    upn=$(upn_of "$role")
    if find_user "$upn" && ! has_user_mark; then
      die "the user $upn already exists and was not created by setup.sh. Add --no-test-users. Nothing was changed."
    fi
  done
}

has_no_directory_role() {
  graph_once get "/me/transitiveMemberOf/microsoft.graph.directoryRole?\$select=roleTemplateId" &&
    [[ $(jq '.value | length' <<<"$GRAPH_RESPONSE") == 0 ]]
}

may_not_register() {
  graph_once get /policies/authorizationPolicy &&
    [[ $(jq '.defaultUserRolePermissions.allowedToCreateApps' <<<"$GRAPH_RESPONSE") == false ]]
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
  missing=$(missing_of_spa)
  if [[ $SPA == '{}' ]]; then
    create_application "register the single-page app $SPA_NAME" "$MARK.spa" "$missing"
    SPA=$GRAPH_RESPONSE
  else
    update_application "the single-page app $SPA_NAME" "$SPA" "$missing"
  fi
  SPA_ID=$(guid_of appId <<<"$SPA")
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
  jq -c --arg name "$SPA_NAME" --arg api "$API_ID" --arg scope_id "$SCOPE_ID" -f src/setup/spa.jq <<<"$SPA"
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

# Sets ACCOUNTS, the lines to print, and PRINTED_USERS, the users in them.
create_test_users() {
  local role assignments
  generate_password
  ACCOUNTS='' PRINTED_USERS=''
  graph_list "/servicePrincipals/$API_PRINCIPAL/appRoleAssignedTo"
  assignments=$GRAPH_RESPONSE
  for role in $(role_names); do
    ensure_user "$role"
    ensure_assignment "$role" "$USER_ID" "$assignments"
  done
  # Print the passwords before .env records that they were printed. After an interruption here, the next run sets
  # new passwords.
  [[ -n $DRY_RUN ]] || printf '\nTest users in this tenant:\n%s' "$ACCOUNTS"
}

# ensure_user ROLE: sets USER_ID and appends to ACCOUNTS and PRINTED_USERS.
ensure_user() {
  local role=$1 upn note=$PASSWORD body
  upn=$(upn_of "$role")
  body=$(jq -Rc --arg upn "$upn" --arg nickname "${upn%%@*}" --arg name "Test $role ($API_NAME)" --arg mark "$MARK" '
    {accountEnabled: true, displayName: $name, mailNickname: $nickname, userPrincipalName: $upn, department: $mark,
     passwordProfile: {password: ., forceChangePasswordNextSignIn: false}}' <<<"$PASSWORD")
  if ! find_user "$upn"; then
    if graph_write "create the user $upn" post /users "$body"; then
      USER_ID=$(guid_of id <<<"$GRAPH_RESPONSE")
    else
      # An attempt whose response was lost, or an earlier run, created the user.
      graph_wait_for "$(user_path "$upn")"
      set_password "$upn" "$body"
    fi
  elif [[ " $(env_note "$ENV_USERS") " == *" $upn "* ]]; then
    USER_ID=$(guid_of id <<<"$GRAPH_RESPONSE")
    note='(password printed by an earlier run)'
    say "up to date: the user $upn"
  else
    set_password "$upn" "$body"
  fi
  ACCOUNTS+=$(printf '  %-6s  %s  %s' "$role" "$upn" "$note")$'\n'
  PRINTED_USERS="$PRINTED_USERS $upn"
}

# set_password UPN BODY: replaces a password that was never printed. Reads the user from GRAPH_RESPONSE, sets USER_ID.
set_password() {
  has_user_mark || die "the user $1 was not created by setup.sh"
  USER_ID=$(guid_of id <<<"$GRAPH_RESPONSE")
  graph_write "set a password for the user $1" patch "/users/$USER_ID" "$(jq -c '{passwordProfile}' <<<"$2")"
}

# Sets PASSWORD: 24 letters and digits (142 bits) in four groups. With the hyphens it satisfies every character class
# that a password policy can require.
generate_password() {
  local text=''
  until [[ $text =~ [a-z] && $text =~ [A-Z] && $text =~ [0-9] ]]; do
    text=$(head -c 96 /dev/urandom | base64 | tr -d '+/=\n')
    text=${text:0:24}
  done
  PASSWORD=${text:0:6}-${text:6:6}-${text:12:6}-${text:18:6}
}

# ensure_assignment ROLE USER_ID ASSIGNMENTS
ensure_assignment() {
  local role body
  role=$(jq -r --arg role "$1" '.[] | select(.value == $role) | .id' "$ROLES_FILE")
  body="{\"principalId\":\"$2\",\"resourceId\":\"$API_PRINCIPAL\",\"appRoleId\":\"$role\"}"
  if jq -e --arg user "$2" --arg role "$role" \
    'any(.principalId == $user and .appRoleId == $role)' <<<"$3" >/dev/null; then
    say "up to date: the role $1 of its test user"
  else
    # Graph documents appRoleAssignedTo of the resource as the place to assign users. An existing assignment is fine.
    graph_write "assign the role $1 to its test user" \
      post "/servicePrincipals/$API_PRINCIPAL/appRoleAssignedTo" "$body" || true
  fi
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
  [[ -z $DRY_RUN ]] || return 0
  cat <<SUMMARY

Settings of the single-page app:
  client ID      $SPA_ID
  authority      $AUTHORITY/organizations
  scope          api://$API_ID/access_as_user
  redirect URI   http://localhost:3000

To add another tenant:
  1. Its administrator opens this address and accepts. This adds both apps to the tenant:
     $AUTHORITY/organizations/adminconsent?client_id=$SPA_ID
     The page that follows does not have to load. Its address ends in tenant= and the tenant ID.
  2. Allow the tenant: cargo run --release -- tenants add TENANT_ID. A running service reloads the list.
  3. Its administrator assigns roles to users: Entra admin center, Enterprise applications, $(say "$API_NAME"),
     Users and groups. Role assignments in your tenant do not apply there.

$ENV_FILE contains the settings of the service. Start the service: cargo run --release
SUMMARY
}

main "$@"
