#!/usr/bin/env bash
# Installs one peer into a folder of its own: install.sh FOLDER PEER. Quiet where it is there already.
# Exit status 3, with the reason as the last line, where it does not install here.
set -euo pipefail
cache=$1 peer=$2

skip() { echo "$*"; exit 3; }

# A virtual environment per peer, since their dependencies contradict one another.
venv() {
    local folder=$cache/$peer
    [ -e "$folder/.complete" ] && return
    rm -rf "$folder"
    mkdir -p "$cache"
    local log=$cache/$peer.log
    python3 -m venv "$folder" >"$log" 2>&1 || skip "python3 -m venv fails: $(tail -n 1 "$log")"
    "$folder/bin/pip" install --disable-pip-version-check --no-input "$@" >>"$log" 2>&1 ||
        skip "pip install $* fails: $(grep -m 1 -i '^error' "$log" || tail -n 1 "$log")"
    touch "$folder/.complete"
}

case $peer in
    nginx)
        command -v nginx >/dev/null && exit 0
        command -v apt-get >/dev/null || skip "nginx is not installed, and there is no apt-get"
        [ "$(id -u)" = 0 ] || skip "nginx is not installed, and only root can: apt-get install nginx"
        mkdir -p "$cache"
        log=$cache/nginx.log
        # The package starts a server on port 80, which nobody asked for.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        fi
        { apt-get install -y --no-install-recommends nginx ||
            { apt-get update && apt-get install -y --no-install-recommends nginx; }; } >"$log" 2>&1 ||
            skip "apt-get install nginx fails: $(tail -n 1 "$log")"
        ;;
    sglang-router) venv sglang-router==0.3.2 ;;
    smg) venv smg==1.13.0 ;;
    vllm-router) venv vllm-router==0.1.17 ;;
    litellm) venv 'litellm[proxy]' ;;
    dynamo) venv ai-dynamo-runtime ai-dynamo ;;
    *) skip "no such peer: $peer" ;;
esac
