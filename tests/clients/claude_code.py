"""Claude Code, headless, against a cluster: python claude_code.py GATEWAY FOLDER

FOLDER has the installed package. The simulated engine calls the one tool that is offered, with the quoted texts of the
prompt; Claude Code runs it and sends the result back.
"""

import json
import os
import pathlib
import subprocess
import sys

gateway, packages = sys.argv[1:3]
here = pathlib.Path.cwd()
(here / "home").mkdir()
(here / "work").mkdir()
(here / "work" / "needle.txt").write_text("hay\n")
environment = {
    "PATH": os.environ["PATH"],
    "HOME": str(here / "home"),
    "ANTHROPIC_BASE_URL": gateway,
    "ANTHROPIC_AUTH_TOKEN": "unused",
    "ANTHROPIC_MODEL": "sim",
    "ANTHROPIC_SMALL_FAST_MODEL": "sim",
    # The simulated engine generates as much as it may.
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "20",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "NO_PROXY": "*",
}
program = pathlib.Path(packages) / "node_modules" / "@anthropic-ai" / "claude-code" / "cli-wrapper.cjs"
prompt = f"Find in '{here / 'work'}' what is named '*.txt'"
options = ["--output-format", "stream-json", "--verbose", "--tools", "Glob", "--max-turns", "1"]
done = subprocess.run(
    ["node", program, "-p", prompt, *options],
    cwd=here / "work", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
)
said = f"{done.stdout}\n{done.stderr}"
events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
blocks = [
    block
    for event in events
    if event["type"] in ("assistant", "user") and isinstance(event["message"]["content"], list)
    for block in event["message"]["content"]
]
calls = [block for block in blocks if block["type"] == "tool_use"]
assert calls and calls[0]["name"] == "Glob" and calls[0]["input"]["pattern"] == "*.txt", said
results = [block for block in blocks if block["type"] == "tool_result"]
assert results and "needle.txt" in json.dumps(results[0]["content"]), said
[result] = [event for event in events if event["type"] == "result"]
# One turn was allowed, and a second was asked for: nothing else went wrong.
assert result["subtype"] in ("success", "error_max_turns"), said
assert result["usage"]["input_tokens"] > 0 and result["usage"]["output_tokens"] > 0, said
