#!/usr/bin/env bash
# The chat at a terminal, which Python's own library makes.
exec python3 "$(dirname "$0")/chat_terminal.py" "$@"
