#!/usr/bin/env bash
# Codex without a terminal on a cluster: codex.sh PACKAGES BASE_URL MODEL
#
# It is asked to run a command. The engine calls it, gets its output, and says the last word.
set -euo pipefail

packages=$1 base_url=$2 model=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/home" "$folder/work"
cat > "$folder/home/config.toml" <<TOML
model = "$model"
model_provider = "tokenbus"
[model_providers.tokenbus]
name = "tokenbus"
base_url = "$base_url"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
TOML
cd "$folder/work"
CODEX_HOME=$folder/home timeout 90 "$packages/node_modules/.bin/codex" exec --json --skip-git-repo-check \
  --dangerously-bypass-approvals-and-sandbox 'Say "of tokenbus" with echo.' < /dev/null > "$folder/events" 2> "$folder/log" ||
  { cat "$folder/events" "$folder/log"; exit 1; }
for sign in '"type":"command_execution"' 'of tokenbus' 'All done.' '"type":"turn.completed"'; do
  grep -qF "$sign" "$folder/events" || { echo "no $sign in:"; cat "$folder/events" "$folder/log"; exit 1; }
done
