# shellcheck shell=bash disable=SC2034 # the scripts that source this file use its variables
# The block of lines in .env that setup.sh owns, between two comments. All other lines belong to the operator.
#
# The service uses the last value of a variable. The block may therefore follow an empty `NAME=` of .env.example.

ENV_FILE=.env
# File format: existing .env files contain the next four strings. If one changes, the scripts miss the block.
ENV_BEGIN='# Written by setup.sh; cleanup.sh takes it away.'
ENV_END='# End of what setup.sh wrote.'
ENV_MARK='# Its mark in the directory: '
ENV_USERS='# Test users whose password was shown: '
ENV_NAMES='AZURE_API_CLIENT_ID AZURE_SPA_CLIENT_ID AZURE_HOME_TENANT_ID AZURE_AUTHORITY_HOST ALLOWED_TENANT_IDS'

# env_lines inside|outside: prints the lines inside the block, without its begin and end, or the lines outside it.
env_lines() {
  [[ -f $ENV_FILE ]] || return 0
  awk -v where="$1" -v begin="$ENV_BEGIN" -v end="$ENV_END" '
    { line = $0; sub(/\r$/, "", line) }
    line == begin { inside = 1; next }
    line == end && inside { inside = 0; next }
    (where == "inside") == (inside == 1)
  ' "$ENV_FILE"
}

# env_setting NAME inside|outside: prints the value without quotes and comment; fails if the variable is not set.
env_setting() {
  local line value found=''
  while IFS= read -r line; do
    line=${line%$'\r'} line=${line#export }
    case $line in
      "$1="*)
        found=yes value=${line#*=}
        case $value in
          \"*\"*) value=${value#\"} value=${value%%\"*} ;;
          \'*\'*) value=${value#\'} value=${value%%\'*} ;;
          *) value=${value%% #*} ;;
        esac
        ;;
    esac
  done < <(env_lines "$2")
  [[ -n $found ]] && printf '%s\n' "$value"
}

# env_note PREFIX: prints the rest of the comment with this prefix in the block, or nothing.
env_note() { env_lines inside | tr -d '\r' | sed -n "s/^$1//p"; }

# env_replace LINES: writes the lines in place of the block, or at the end. Without lines it removes the block.
env_replace() {
  local block=$1 temporary
  temporary=$(mktemp "$ENV_FILE.XXXXXX")
  chmod 600 "$temporary"
  if [[ -f $ENV_FILE ]]; then
    block=$block awk -v begin="$ENV_BEGIN" -v end="$ENV_END" '
      function put() { if (!done && ENVIRON["block"] != "") print ENVIRON["block"]; done = 1 }
      { line = $0; sub(/\r$/, "", line) }
      line == begin { inside = 1; put(); next }
      line == end && inside { inside = 0; next }
      !inside
      END { put() }
    ' "$ENV_FILE" >"$temporary"
  elif [[ -n $block ]]; then
    printf '%s\n' "$block" >"$temporary"
  fi
  if [[ ! -s $temporary ]]; then
    rm -f "$temporary" "$ENV_FILE"
  elif [[ -f $ENV_FILE ]] && cmp -s "$temporary" "$ENV_FILE"; then
    rm -f "$temporary"
    chmod 600 "$ENV_FILE"
  else
    mv -f "$temporary" "$ENV_FILE"
  fi
}

# Prints the lines that the operator added inside the block.
env_operator_lines() {
  local line name
  while IFS= read -r line; do
    name=${line#export } name=${name%%=*}
    case " $ENV_NAMES " in *" $name "*) continue ;; esac
    case $line in "$ENV_MARK"* | "$ENV_USERS"*) continue ;; esac
    printf '%s\n' "$line"
  done < <(env_lines inside)
}
