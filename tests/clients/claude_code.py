"""Claude Code, headless, against a cluster: python claude_code.py GATEWAY FOLDER

FOLDER has the installed package. The engine calls the one tool that is offered; Claude Code runs it and sends the result
back, and the engine says the last word.
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
    "ANTHROPIC_MODEL": "m",
    "ANTHROPIC_SMALL_FAST_MODEL": "m",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "NO_PROXY": "*",
}
program = pathlib.Path(packages) / "node_modules" / "@anthropic-ai" / "claude-code" / "cli-wrapper.cjs"
options = ["--output-format", "stream-json", "--verbose", "--tools", "Glob", "--max-turns", "2"]
done = subprocess.run(
    ["node", program, "-p", "Find what is named '*.txt'", *options],
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
assert result["subtype"] == "success" and result["result"] == "All done.", said
assert result["usage"]["input_tokens"] > 0 and result["usage"]["output_tokens"] > 0, said
