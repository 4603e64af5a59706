#!/usr/bin/env bash
# opencode without a terminal on a cluster: opencode.sh PACKAGES BASE_URL MODEL
#
# It is asked to run a command. The engine calls it, gets its output, and says the last word.
set -euo pipefail

packages=$1 base_url=$2 model=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/home" "$folder/work"
cat > "$folder/work/opencode.json" <<JSON
{
  "model": "tokenbus/$model", "small_model": "tokenbus/$model", "autoupdate": false, "share": "disabled",
  "provider": {"tokenbus": {
    "npm": "@ai-sdk/openai-compatible",
    "options": {"baseURL": "$base_url", "apiKey": "unused"},
    "models": {"$model": {"name": "$model", "limit": {"context": 8192, "output": 1024}}}
  }}
}
JSON
cd "$folder/work"
# A title is given, or the model is asked for one. Nothing is fetched, which would cost time where the network is shut.
env -i PATH="$PATH" HOME="$folder/home" NO_PROXY='*' OPENCODE_DISABLE_MODELS_FETCH=1 OPENCODE_DISABLE_LSP_DOWNLOAD=1 \
  timeout 150 "$packages"/node_modules/opencode-linux-x64/bin/opencode run \
  --format json --print-logs --title test 'Say "of tokenbus" with echo.' < /dev/null > "$folder/events" 2> "$folder/log" ||
  { cat "$folder/events" "$folder/log"; exit 1; }
for sign in '"tool":"bash"' '"output":"of tokenbus\n"' 'All done.' '"reason":"stop"'; do
  grep -qF "$sign" "$folder/events" || { echo "no $sign in:"; cat "$folder/events" "$folder/log"; exit 1; }
done
