#!/usr/bin/env bash
# curl as people use it, against a cluster: curl.sh ADDRESS
# The simulated engine serves the model `sim`.
set -euo pipefail
at="http://$1"
chat='{"model":"sim","messages":[{"role":"user","content":"Hello?"}],"max_tokens":2}'
streamed="${chat%\}},\"stream\":true}"
json='content-type: application/json'
failed=0

# is NAME PATTERN CURL-ARGUMENTS…: the answer, its status in the last line, holds the pattern.
is() {
    local name=$1 pattern=$2 answer
    shift 2
    answer=$(curl -sS --max-time 20 -w '\n%{http_code}' "$@")
    if grep -qE -- "$pattern" <<<"$answer"; then
        echo "passed: $name"
    else
        printf 'FAILED: %s: no %s in:\n%s\n' "$name" "$pattern" "$answer"
        failed=1
    fi
}

is "a chat" '"content":"t0 t1 "' "$at/v1/chat/completions" -H "$json" -d "$chat"
is "without a content type" '"content":"t0 t1 "' "$at/v1/chat/completions" -d "$chat"
is "with any key" '"content":"t0 t1 "' "$at/v1/chat/completions" -H 'authorization: Bearer sk-unused' -d "$chat"
is "a stream" '^data: \[DONE\]' -N "$at/v1/chat/completions" -H "$json" -d "$streamed"
is "a stream's type" 'content-type: text/event-stream' -N -D - "$at/v1/chat/completions" -H "$json" -d "$streamed"
is "HTTP/2 with prior knowledge" '"content":"t0 t1 "' --http2-prior-knowledge "$at/v1/chat/completions" -d "$chat"
is "a body in chunks" '"content":"t0 t1 "' -H 'transfer-encoding: chunked' "$at/v1/chat/completions" -d "$chat"
is "a body behind 100-continue" '"content":"t0 t1 "' -H 'expect: 100-continue' "$at/v1/chat/completions" -d "$chat"
is "--compressed" '"content":"t0 t1 "' --compressed "$at/v1/chat/completions" -d "$chat"
is "a completion" '"text":"t0 t1 "' "$at/v1/completions" -d '{"model":"sim","prompt":"a","max_tokens":2}'
is "an embedding" '"embedding":\[' "$at/v1/embeddings" -d '{"model":"sim","input":"a"}'
is "a response" '"text":"t0 t1 "' "$at/v1/responses" -d '{"model":"sim","input":"a","max_output_tokens":2}'
is "a message" '"text":"t0 t1 "' "$at/v1/messages" -H 'anthropic-version: 2023-06-01' -H 'x-api-key: unused' -d "$chat"
is "counted tokens" '"input_tokens":1' "$at/v1/messages/count_tokens" -d "$chat"
is "ranks" '"index":1' "$at/v1/rerank" -d '{"model":"sim","query":"red","documents":["blue","red"],"top_n":1}'
is "tokens" '"count":2' "$at/tokenize" -d '{"model":"sim","prompt":"a b"}'
is "the models" '"id":"sim"' "$at/v1/models"
is "one model" '"id":"sim"' "$at/v1/models/sim"
is "the head of the models" '^200$' -I "$at/v1/models"
is "a slash too many" '^200$' "$at//v1/models"
is "a form is no JSON" '^400$' "$at/v1/chat/completions" -F "model=sim"
is "a body in an unknown coding" '^415$' "$at/v1/chat/completions" -H 'content-encoding: br' --data-binary "$chat"
is "a body that is not what its coding says" '^400$' "$at/v1/chat/completions" -H 'content-encoding: gzip' --data-binary "$chat"
is "a GET" '^405$' "$at/v1/chat/completions"
is "a wrong path" '"code":"unknown_url"' "$at/v1/chat" -d "$chat"
is "nothing at all" '"code":"invalid_json"' -X POST "$at/v1/chat/completions"
exit "$failed"
