# shellcheck shell=bash disable=SC2034 # what is set here is used by the scripts that source it
# What setup.sh keeps in .env: a block of lines between two comments. All else in the file is the operator's.
#
# The service takes a variable's last value, so the block may follow an empty `NAME=` of .env.example.

ENV_FILE=.env
ENV_BEGIN='# Written by setup.sh; cleanup.sh takes it away.'
ENV_END='# End of what setup.sh wrote.'
ENV_USERS='# Test users whose password was shown: '
ENV_OWN='AZURE_API_CLIENT_ID AZURE_SPA_CLIENT_ID AZURE_HOME_TENANT_ID AZURE_AUTHORITY_HOST ALLOWED_TENANT_IDS'

# env_part in|out: the lines of the block, without its two comments, or all others.
env_part() {
  [[ -f $ENV_FILE ]] || return 0
  awk -v part="$1" -v begin="$ENV_BEGIN" -v end="$ENV_END" '
    $0 == begin { inside = 1; next }
    $0 == end && inside { inside = 0; next }
    (part == "in") == (inside == 1)
  ' "$ENV_FILE"
}

# env_setting NAME in|out: its value there, without quotes; fails if it is not set at all.
env_setting() {
  local line value found=1
  while IFS= read -r line; do
    line=${line#export }
    case $line in
      "$1="*)
        found=0 value=${line#*=} value=${value%$'\r'}
        case $value in
          \"*\") value=${value#\"} value=${value%\"} ;;
          \'*\') value=${value#\'} value=${value%\'} ;;
        esac
        ;;
    esac
  done < <(env_part "$2")
  [[ $found == 0 ]] && printf '%s\n' "$value"
}

# env_replace LINES: puts them where the block is, or at the end; no lines, no block.
env_replace() {
  local block=$1 temporary
  temporary=$(mktemp "$ENV_FILE.XXXXXX")
  chmod 600 "$temporary"
  if [[ -f $ENV_FILE ]]; then
    block=$block awk -v begin="$ENV_BEGIN" -v end="$ENV_END" '
      function put() { if (!done && ENVIRON["block"] != "") print ENVIRON["block"]; done = 1 }
      $0 == begin { inside = 1; put(); next }
      $0 == end && inside { inside = 0; next }
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
  local line
  while IFS= read -r line; do
    case " $ENV_OWN " in *" ${line%%=*} "*) continue ;; esac
    case $line in "$ENV_USERS"*) continue ;; esac
    printf '%s\n' "$line"
  done < <(env_part in)
}
