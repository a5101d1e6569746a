# shellcheck shell=bash disable=SC2154 # setup.sh sets API, TEST_USERS and ACCOUNT
# The checks of setup.sh before its first change.

# Fails if a role or scope of the API has a value of setup.sh but another ID. Graph rejects a second one with this
# value, and the removal of an enabled one.
check_values() {
  local value
  value=$(jq -r --arg scope_id "$SCOPE_ID" --slurpfile roles "$ROLES_FILE" '
    ($roles[0] + [{value: "access_as_user", id: $scope_id}]) as $wanted
    | first((.appRoles // [])[], (.api.oauth2PermissionScopes // [])[]
      | select(. as $it | any($wanted[]; .value == $it.value and .id != $it.id)) | .value)' <<<"$API")
  [[ -z $value ]] ||
    die "the API $API_NAME already has a role or scope with the value $value that setup.sh did not create." \
      'Disable and delete it in the Entra admin center. Nothing was changed.'
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
