#!/usr/bin/env bash
# Installs the Azure CLI with only the libraries that `az login`, `az account` and `az rest` load. Most other command
# groups fail.
#
#   tests/azure/install_slim.sh FOLDER
set -euo pipefail
folder=$1
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check \
  azure-cli-core==2.91.0 msrest azure-common python-dateutil azure-mgmt-resource==24.0.0
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps azure-cli==2.91.0
configuration=$(mktemp -d)
trap 'rm -r "$configuration"' EXIT
AZURE_CONFIG_DIR=$configuration "$folder/bin/az" version --output none
