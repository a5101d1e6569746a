#!/usr/bin/env bash
# From a signed-in Azure CLI to a .env that starts the service: see usage below, or ./setup.sh --help.
#
# Each step reads what is there and writes only what is missing, so it can be run again at any time, and after
# any interruption. .env comes last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=src/setup/registration.sh
source src/setup/registration.sh

usage() {
  cat <<'USAGE'
usage: ./setup.sh [--dry-run] [--no-test-users] [API_NAME [SPA_NAME]]

Registers the API and its single-page app with the Entra tenant that az is signed in to, makes three test users
with a role each, and writes .env. Run it again at any time: it repairs what is missing and changes nothing else.

  API_NAME          the API's name, tenant-tasks-api if none is given; it cannot be changed afterwards
  SPA_NAME          the single-page app's name: the API's with -spa for -api
  --no-test-users   make no test users
  --dry-run         only print what would be done
USAGE
}

main() {
  parse_arguments "$@"
  require_tools
  graph_open
  sign_in
  find_registrations
  check_rights
  register_api
  register_spa
  connect
  make_principals
  if [[ -n $TEST_USERS ]]; then
    make_test_users
  fi
  write_env
  print_summary
}

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
        parse_name "$argument"
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

# What is there of ours: API and SPA become their registrations, {} where there is none.
find_registrations() {
  local by_hand recorded
  MARK=$(env_note "$ENV_MARK")
  if [[ -n $MARK && -n $API_NAME && $MARK != "$(mark_of "$API_NAME")" ]]; then
    die "$ENV_FILE is of ${MARK#"$(mark_of '')"}: set up $API_NAME from another clone, or ./cleanup.sh first"
  fi
  MARK=${MARK:-$(mark_of "${API_NAME:-tenant-tasks-api}")}
  API='{}' SPA='{}' GONE_SPA=''
  recorded=$(env_setting AZURE_API_CLIENT_ID in || true)
  if find_application "$recorded" "$MARK.api"; then
    API=$GRAPH_ANSWER
    [[ -n $recorded ]] || say "found, from a run before this one: the API $MARK"
  fi
  by_hand=$(env_setting AZURE_API_CLIENT_ID out || true)
  [[ -z $by_hand ]] || same_guid "$by_hand" "$(jq -r '.appId' <<<"$API")" ||
    die "AZURE_API_CLIENT_ID in $ENV_FILE is not a registration of setup.sh: take the line out, it makes its own"
  API_NAME=${API_NAME:-$(jq -r --arg name "${MARK#"$(mark_of '')"}" '.displayName // $name' <<<"$API")}

  recorded=$(env_setting AZURE_SPA_CLIENT_ID in || true)
  if find_application "$recorded" "$MARK.spa"; then
    SPA=$GRAPH_ANSWER
  fi
  same_guid "$recorded" "$(jq -r '.appId' <<<"$SPA")" || GONE_SPA=$recorded
  SPA_NAME=${SPA_NAME:-$(jq -r --arg name "${API_NAME%-api}-spa" '.displayName // $name' <<<"$SPA")}
}

# Says before the first change what would fail later. What it cannot find out, Graph's refusal will say.
check_rights() {
  local role upn
  if [[ $ACCOUNT_TYPE == user ]] && has_no_directory_role; then
    if may_not_register; then
      die "$ACCOUNT may not register apps in this tenant: ask for the role Application Developer. Nothing was changed."
    fi
    [[ -z $TEST_USERS ]] || die "$ACCOUNT may register apps here, but not make users: add --no-test-users, or" \
      'sign in as an administrator. Nothing was changed.'
  fi
  [[ -n $TEST_USERS ]] || return 0
  for role in $ROLES; do
    upn=$(upn_of "$role")
    if find_user "$upn" && ! user_is_ours; then
      die "there is a user $upn already, not made by this set-up: add --no-test-users. Nothing was changed."
    fi
  done
}

has_no_directory_role() {
  graph_once get "/me/transitiveMemberOf/microsoft.graph.directoryRole?\$select=roleTemplateId" &&
    [[ $(jq '.value | length' <<<"$GRAPH_ANSWER") == 0 ]]
}

may_not_register() {
  graph_once get /policies/authorizationPolicy &&
    [[ $(jq '.defaultUserRolePermissions.allowedToCreateApps' <<<"$GRAPH_ANSWER") == false ]]
}

register_api() {
  local missing
  if [[ $API == '{}' ]]; then
    missing=$(missing_of_api '')
    create_application "register the API $API_NAME" "$MARK.api" "$missing"
    API=$GRAPH_ANSWER
  fi
  API_ID=$(jq -r '.appId' <<<"$API")
}

register_spa() {
  local missing
  missing=$(missing_of_spa)
  if [[ $SPA == '{}' ]]; then
    create_application "register the single-page app $SPA_NAME" "$MARK.spa" "$missing"
    SPA=$GRAPH_ANSWER
  else
    repair_application "the single-page app $SPA_NAME" "$SPA" "$missing"
  fi
  SPA_ID=$(jq -r '.appId' <<<"$SPA")
}

# The API learns of its own identifier and of the single-page app, so that one consent covers both.
connect() {
  local missing
  missing=$(missing_of_api "$SPA_ID")
  repair_application "the API $API_NAME" "$API" "$missing"
}

missing_of_api() {
  jq -c --arg name "$API_NAME" --arg spa "$1" --arg gone "$GONE_SPA" --argjson ids "$ENTITLEMENTS" \
    -f src/setup/api.jq <<<"$API"
}

missing_of_spa() {
  jq -c --arg name "$SPA_NAME" --arg api "$API_ID" --argjson ids "$ENTITLEMENTS" -f src/setup/spa.jq <<<"$SPA"
}

# create_application WHAT MARK BODY: by its mark, so that a second try makes no second one.
create_application() {
  graph_write "$1" patch "/applications(uniqueName='$2')" "$3" 'Prefer=create-if-missing'
  if [[ -z $GRAPH_ANSWER ]]; then
    # It was there after all; Graph then answers nothing.
    graph_await "$(application_path "$2")"
  fi
}

# repair_application WHAT REGISTRATION MISSING
repair_application() {
  if [[ $3 == '{}' ]]; then
    say "as it should be: $1"
  else
    graph_write "complete $1 ($(jq -r 'keys | join(", ")' <<<"$3"))" \
      patch "/applications/$(jq -r '.id' <<<"$2")" "$3"
  fi
}

make_principals() {
  ensure_principal "$SPA_ID" "$SPA_NAME"
  ensure_principal "$API_ID" "$API_NAME"
  API_PRINCIPAL=$(jq -r '.id' <<<"$GRAPH_ANSWER")
}

# ensure_principal CLIENT_ID NAME: GRAPH_ANSWER is the service principal, which people are given roles at.
ensure_principal() {
  local path="/servicePrincipals(appId='$1')?\$select=id" body
  if graph_read "$path"; then
    say "as it should be: the service principal of $2"
    return 0
  fi
  # The tag is what lists it under Enterprise applications.
  body="{\"appId\":\"$1\",\"tags\":[\"WindowsAzureActiveDirectoryIntegratedApp\"]}"
  graph_write "create the service principal of $2" post /servicePrincipals "$body" || graph_await "$path"
}

make_test_users() {
  local role assignments
  new_password
  ACCOUNTS='' SHOWN=''
  graph_list "/servicePrincipals/$API_PRINCIPAL/appRoleAssignedTo"
  assignments=$GRAPH_ANSWER
  for role in $ROLES; do
    ensure_user "$role"
    ensure_assignment "$role" "$USER_ID" "$assignments"
  done
  # Before .env says that they were shown: if this is cut short here, the next run sets new ones.
  [[ -n $DRY_RUN ]] || printf '\nTest accounts of this tenant:\n%s' "$ACCOUNTS"
}

# ensure_user ROLE: sets USER_ID, and adds a line to ACCOUNTS.
ensure_user() {
  local role=$1 upn note=$PASSWORD body
  upn=$(upn_of "$role")
  body=$(jq -Rc --arg upn "$upn" --arg nickname "${upn%%@*}" --arg name "Test $role ($API_NAME)" --arg mark "$MARK" '
    {accountEnabled: true, displayName: $name, mailNickname: $nickname, userPrincipalName: $upn, department: $mark,
     passwordProfile: {password: ., forceChangePasswordNextSignIn: false}}' <<<"$PASSWORD")
  if ! find_user "$upn"; then
    if graph_write "create the user $upn" post /users "$body"; then
      USER_ID=$(jq -r '.id' <<<"$GRAPH_ANSWER")
    else
      # Made by a try whose answer was lost, or by a run before this one.
      graph_await "$(user_path "$upn")"
      set_password "$upn" "$body"
    fi
  elif [[ " $(env_note "$ENV_USERS") " == *" $upn "* ]]; then
    USER_ID=$(jq -r '.id' <<<"$GRAPH_ANSWER") note='(as shown before)'
    say "as it should be: the user $upn"
  else
    set_password "$upn" "$body"
  fi
  ACCOUNTS+=$(printf '  %-6s  %s  %s' "$role" "$upn" "$note")$'\n'
  SHOWN="$SHOWN $upn"
}

# set_password UPN BODY: a user that is there, but whose password nobody has seen.
set_password() {
  user_is_ours || die "the user $1 was not made by this set-up"
  USER_ID=$(jq -r '.id' <<<"$GRAPH_ANSWER")
  graph_write "set a password for the user $1" patch "/users/$USER_ID" "$(jq -c '{passwordProfile}' <<<"$2")"
}

# 24 letters and digits, 142 bits, in four groups; with the hyphens it has every kind that a policy may ask for.
new_password() {
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
  role=$(jq -r --arg role "$1" '.[$role]' <<<"$ENTITLEMENTS")
  body="{\"principalId\":\"$2\",\"resourceId\":\"$API_PRINCIPAL\",\"appRoleId\":\"$role\"}"
  if jq -e --arg user "$2" --arg role "$role" 'any(.principalId == $user and .appRoleId == $role)' <<<"$3" >/dev/null; then
    say "as it should be: the role $1 of its test user"
  else
    # At the resource's end: that is where users of an application belong. There already is as good as done.
    graph_write "give the test user the role $1" post "/servicePrincipals/$API_PRINCIPAL/appRoleAssignedTo" "$body" ||
      true
  fi
}

write_env() {
  local block
  block=$(env_block)
  if [[ -n $DRY_RUN ]]; then
    printf '\nwould write into %s:\n%s\n' "$ENV_FILE" "${block//$UNMADE/(new)}"
  else
    env_replace "$block"
  fi
}

env_block() {
  local name value shown=${SHOWN:-$(env_note "$ENV_USERS")}
  say "$ENV_BEGIN"
  say "$ENV_MARK$MARK"
  for name in $ENV_OWN; do
    case $name in
      AZURE_API_CLIENT_ID) value=$API_ID ;;
      AZURE_SPA_CLIENT_ID) value=$SPA_ID ;;
      AZURE_HOME_TENANT_ID) value=$TENANT_ID ;;
      AZURE_AUTHORITY_HOST)
        value=$AUTHORITY
        [[ $value != https://login.microsoftonline.com ]] || continue
        ;;
      ALLOWED_TENANT_IDS)
        # Set outside the block, even to nobody, it is the operator's; so is what has been added inside.
        if env_setting "$name" out >/dev/null; then
          continue
        fi
        value=$(env_setting "$name" in || say "$TENANT_ID")
        ;;
    esac
    say "$name=$value"
  done
  env_foreign
  [[ -z $shown ]] || say "$ENV_USERS${shown# }"
  say "$ENV_END"
}

print_summary() {
  [[ -z $DRY_RUN ]] || return 0
  cat <<SUMMARY

The single-page app's settings:
  client id      $SPA_ID
  authority      $AUTHORITY/organizations
  scope          api://$API_ID/access_as_user
  redirect URI   http://localhost:3000

Another organisation joins like this:
  1. Its administrator opens this address and accepts, which adds both apps to their tenant:
     $AUTHORITY/organizations/adminconsent?client_id=$SPA_ID
     The page it ends on need not load; its address ends in tenant=, followed by their tenant id.
  2. Let its people in: cargo run --release -- tenants add TENANT_ID. A running service notices.
  3. Their administrator gives people a role: Entra admin centre, Enterprise applications, $API_NAME,
     Users and groups. Your own assignments do not carry over.

The service's settings are in $ENV_FILE. Start it: cargo run --release
SUMMARY
}

main "$@"
