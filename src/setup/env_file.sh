# shellcheck shell=bash disable=SC2034 # what is set here is used by the scripts that source it
# What setup.sh keeps in .env: a block of lines between two comments. All else in the file is the operator's.
#
# The service takes a variable's last value, so the block may follow an empty `NAME=` of .env.example.

ENV_FILE=.env
ENV_BEGIN='# Written by setup.sh; cleanup.sh takes it away.'
ENV_END='# End of what setup.sh wrote.'
ENV_MARK='# Its mark in the directory: '
ENV_USERS='# Test users whose password was shown: '
ENV_OWN='AZURE_API_CLIENT_ID AZURE_SPA_CLIENT_ID AZURE_HOME_TENANT_ID AZURE_AUTHORITY_HOST ALLOWED_TENANT_IDS'

# env_part in|out: the lines of the block, without its two comments, or all others.
env_part() {
  [[ -f $ENV_FILE ]] || return 0
  awk -v part="$1" -v begin="$ENV_BEGIN" -v end="$ENV_END" '
    { line = $0; sub(/\r$/, "", line) }
    line == begin { inside = 1; next }
    line == end && inside { inside = 0; next }
    (part == "in") == (inside == 1)
  ' "$ENV_FILE"
}

# env_setting NAME in|out: its value there, without quotes or comment; fails if it is not set at all.
env_setting() {
  local line value found=1
  while IFS= read -r line; do
    line=${line%$'\r'} line=${line#export }
    case $line in
      "$1="*)
        found=0 value=${line#*=}
        case $value in
          \"*\"*) value=${value#\"} value=${value%%\"*} ;;
          \'*\'*) value=${value#\'} value=${value%%\'*} ;;
          *) value=${value%% #*} ;;
        esac
        ;;
    esac
  done < <(env_part "$2")
  [[ $found == 0 ]] && printf '%s\n' "$value"
}

# env_note PREFIX: what setup.sh has noted for itself in a comment of the block; nothing if it has not.
env_note() { env_part in | tr -d '\r' | sed -n "s/^$1//p"; }

# env_replace LINES: puts them where the block is, or at the end; no lines, no block.
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

# Other lines that somebody put into the block.
env_foreign() {
  local line name
  while IFS= read -r line; do
    name=${line#export } name=${name%%=*}
    case " $ENV_OWN " in *" $name "*) continue ;; esac
    case $line in "$ENV_MARK"* | "$ENV_USERS"*) continue ;; esac
    printf '%s\n' "$line"
  done < <(env_part in)
}
