# shellcheck shell=bash disable=SC2154 # setup.sh sets the variables
# The test users of setup.sh and their roles.

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
