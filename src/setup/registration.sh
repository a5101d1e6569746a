# shellcheck shell=bash disable=SC2034 # the scripts that source this file use its variables
# What setup.sh creates in the directory, and how the scripts recognize it. setup.sh and cleanup.sh source this file.
#
# An application has a mark in `uniqueName`, which Graph keeps unique and never changes. A test user has it in
# `department`. A name alone never identifies an object.

# shellcheck source=src/setup/graph.sh
source src/setup/graph.sh
# shellcheck source=src/setup/env_file.sh
source src/setup/env_file.sh

# The IDs of the scope and of the roles are fixed. Graph does not allow changes to an enabled one, so every run must use
# the same IDs.
SCOPE_ID=8b3c158c-8dc7-4a43-8503-d3949f65150e
ROLES_FILE=src/setup/roles.json
FIELDS='id,appId,uniqueName,displayName,signInAudience,identifierUris,appRoles,api,spa,requiredResourceAccess'

require_tools() {
  if ! command -v jq >/dev/null; then
    # Not `die`, which needs jq.
    echo 'jq is not installed: https://jqlang.org/download' >&2
    exit 1
  fi
  command -v az >/dev/null ||
    die 'the Azure CLI (az) is not installed: https://learn.microsoft.com/cli/azure/install-azure-cli'
  [[ ! -L $ENV_FILE ]] || die "$ENV_FILE is a symbolic link, which ${0##*/} would replace. Copy the file here."
}

# Verifies the sign-in. Sets ACCOUNT, ACCOUNT_TYPE, TENANT_ID, DOMAIN, AUTHORITY and GRAPH.
sign_in() {
  local account recorded
  account=$(az account show --output json --only-show-errors 2>/dev/null) ||
    die 'not signed in. Run: az login --allow-no-subscriptions'
  ACCOUNT=$(jq -r '.user.name' <<<"$account")
  ACCOUNT_TYPE=$(jq -r '.user.type' <<<"$account")
  TENANT_ID=$(guid_of tenantId <<<"$account")
  case $(jq -r '.environmentName' <<<"$account") in
    AzureCloud) AUTHORITY=https://login.microsoftonline.com ;;
    AzureUSGovernment) AUTHORITY=https://login.microsoftonline.us GRAPH=https://graph.microsoft.us/v1.0 ;;
    AzureChinaCloud)
      AUTHORITY=https://login.partner.microsoftonline.cn GRAPH=https://microsoftgraph.chinacloudapi.cn/v1.0
      ;;
    *) die 'az uses a cloud that the service does not support. Run: az cloud set --name AzureCloud' ;;
  esac
  # `az account show` only reads a file. A call to Graph shows whether the sign-in is still valid.
  graph_read "/organization?\$select=id,displayName,verifiedDomains" || die 'Graph returned no tenant for this account'
  # The initial domain cannot be federated, so users created in it can sign in with a password.
  DOMAIN=$(jq -r --arg id "$TENANT_ID" \
    'first(.value[] | select(.id == $id)) | .verifiedDomains[] | select(.isInitial) | .name' <<<"$GRAPH_RESPONSE")
  [[ -n $DOMAIN ]] || die "Graph returned another tenant than $TENANT_ID. Run: az login --tenant $TENANT_ID"
  [[ $DOMAIN =~ ^[A-Za-z0-9.-]+$ ]] || die "Graph returned an initial domain that is not a domain name: $DOMAIN"
  recorded=$(env_setting AZURE_HOME_TENANT_ID inside || env_setting AZURE_HOME_TENANT_ID outside || true)
  if [[ -n $recorded ]] && ! same_guid "$recorded" "$TENANT_ID"; then
    die "$ENV_FILE is for tenant $recorded, but az is signed in to $TENANT_ID. Run: az login --tenant $recorded"
  fi
}

# validate_name NAME: fails on characters that a mark must not contain.
validate_name() {
  [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$ ]] ||
    die "'$1' is not a valid name. Use at most 40 letters, digits, dots, hyphens and underscores."
}

role_names() { jq -r '.[].value' "$ROLES_FILE"; }

mark_of() { printf '%s\n' "tenant-tasks-setup.$1"; }

same_guid() { [[ $(tr '[:upper:]' '[:lower:]' <<<"$1") == "$(tr '[:upper:]' '[:lower:]' <<<"$2")" ]]; }

application_path() { printf '%s\n' "/applications(uniqueName='$1')?\$select=$FIELDS"; }

# find_application CLIENT_ID MARK: sets GRAPH_RESPONSE to the application with this mark. It looks first by the client
# ID, which may be empty, then by the mark.
find_application() {
  if [[ -n $1 ]] && graph_read "/applications(appId='$1')?\$select=$FIELDS"; then
    jq -e --arg mark "$2" '.uniqueName == $mark' <<<"$GRAPH_RESPONSE" >/dev/null && return 0
  fi
  graph_read "$(application_path "$2")"
}

upn_of() { printf '%s\n' "testuser-$(tr '[:upper:]' '[:lower:]' <<<"$1")@$DOMAIN"; }

user_path() { printf '%s\n' "/users/$1?\$select=id,userPrincipalName,department"; }

# find_user UPN: sets GRAPH_RESPONSE to the user with this name, which setup.sh may not have created.
find_user() { graph_read "$(user_path "$1")"; }

# Whether the user in GRAPH_RESPONSE has the mark.
has_user_mark() { jq -e --arg mark "$MARK" '.department == $mark' <<<"$GRAPH_RESPONSE" >/dev/null; }
