# shellcheck shell=bash disable=SC2034 # what is set here is used by the scripts that source it
# What setup.sh makes in the directory, and how it is told from everything else there.
#
# An application of ours carries a mark in `uniqueName`, which Graph keeps unique and never changes; a test user
# carries it in `department`. Nothing is taken for ours by its name. Both scripts source this file, and it the others.

# shellcheck source=src/setup/graph.sh
source src/setup/graph.sh
# shellcheck source=src/setup/env_file.sh
source src/setup/env_file.sh

ROLES='Admin Editor Reader'

# Fixed: an enabled role or scope cannot be changed, so a second run must name the very same.
ENTITLEMENTS='{
  "access_as_user": "8b3c158c-8dc7-4a43-8503-d3949f65150e",
  "Admin": "06497402-6e2f-4842-b6df-caef24449021",
  "Editor": "a9ef59ff-a7f5-4727-a3d7-3ba06281188c",
  "Reader": "0a241466-b577-4178-aabb-f3a2d1a4ba38"
}'
FIELDS='id,appId,uniqueName,displayName,signInAudience,identifierUris,appRoles,api,spa,requiredResourceAccess'

require_tools() {
  command -v az >/dev/null ||
    die 'the Azure CLI, az, is not installed: https://learn.microsoft.com/cli/azure/install-azure-cli'
  command -v jq >/dev/null || die 'jq is not installed: https://jqlang.org/download'
  [[ ! -L $ENV_FILE ]] || die "$ENV_FILE is a symbolic link: replacing it would break the link. Copy the file here."
}

# Finds out who is signed in, where, and whether the sign-in still works; changes nothing.
sign_in() {
  local account recorded
  account=$(az account show --output json --only-show-errors 2>/dev/null) ||
    die 'not signed in: az login --allow-no-subscriptions'
  ACCOUNT=$(jq -r '.user.name' <<<"$account")
  ACCOUNT_TYPE=$(jq -r '.user.type' <<<"$account")
  TENANT_ID=$(jq -r '.tenantId' <<<"$account")
  case $(jq -r '.environmentName' <<<"$account") in
    AzureCloud) AUTHORITY=https://login.microsoftonline.com ;;
    AzureUSGovernment) AUTHORITY=https://login.microsoftonline.us GRAPH=https://graph.microsoft.us/v1.0 ;;
    AzureChinaCloud)
      AUTHORITY=https://login.partner.microsoftonline.cn GRAPH=https://microsoftgraph.chinacloudapi.cn/v1.0
      ;;
    *) die 'az is set to a cloud this service does not know: az cloud set --name AzureCloud' ;;
  esac
  # `az account show` reads a file; only Graph can tell whether the sign-in is still good.
  graph_read "/organization?\$select=id,displayName,verifiedDomains" || die 'this account has no organisation'
  # Its first domain is the one that no federation can take over: users made there can sign in with a password.
  DOMAIN=$(jq -r --arg id "$TENANT_ID" \
    'first(.value[] | select(.id == $id)) | .verifiedDomains[] | select(.isInitial) | .name' <<<"$GRAPH_ANSWER")
  [[ -n $DOMAIN ]] || die "Graph answers for another tenant than $TENANT_ID: az login --tenant $TENANT_ID"
  recorded=$(env_setting AZURE_HOME_TENANT_ID in || env_setting AZURE_HOME_TENANT_ID out || true)
  [[ -z $recorded ]] || same_guid "$recorded" "$TENANT_ID" ||
    die "$ENV_FILE is for tenant $recorded, but you are signed in to $TENANT_ID: az login --tenant $recorded"
}

# parse_name NAME: what goes into a mark, and nothing else.
parse_name() {
  [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$ ]] ||
    die "'$1' cannot be a name: at most 40 letters, digits, dots, hyphens and underscores"
}

mark_of() { say "tenant-tasks-setup.$1"; }

same_guid() { [[ $(tr '[:upper:]' '[:lower:]' <<<"$1") == "$(tr '[:upper:]' '[:lower:]' <<<"$2")" ]]; }

application_path() { say "/applications(uniqueName='$1')?\$select=$FIELDS"; }

# find_application CLIENT_ID MARK: GRAPH_ANSWER is ours, by the recorded client id or else by the mark, which it
# bears in either case.
find_application() {
  if [[ -n $1 ]] && graph_read "/applications(appId='$1')?\$select=$FIELDS"; then
    [[ $(jq -r '.uniqueName // ""' <<<"$GRAPH_ANSWER") == "$2" ]] && return 0
  fi
  graph_read "$(application_path "$2")"
}

upn_of() { say "testuser-$(tr '[:upper:]' '[:lower:]' <<<"$1")@$DOMAIN"; }

user_path() { say "/users/$1?\$select=id,userPrincipalName,department"; }

# find_user UPN: GRAPH_ANSWER is whoever has this name; user_is_ours then tells whether setup.sh made them.
find_user() { graph_read "$(user_path "$1")"; }

user_is_ours() { [[ $(jq -r '.department // ""' <<<"$GRAPH_ANSWER") == "$MARK" ]]; }
