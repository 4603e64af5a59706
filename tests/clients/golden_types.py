"""Reads the golden transcripts with the SDKs' own types in strict mode: python golden_types.py API FOLDER"""

import pathlib
import sys

from pydantic import TypeAdapter

API, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])

if API == "responses":
    from openai.types.responses import Response as Whole
    from openai.types.responses import ResponseStreamEvent as Event

    ERROR = None
else:
    from anthropic.types import Message as Whole
    from anthropic.types import RawMessageStreamEvent as Event
    from anthropic.types.shared import ErrorResponse

    ERROR = TypeAdapter(ErrorResponse)
EVENT = TypeAdapter(Event)

read = 0
for path in sorted(FOLDER.glob("*.json")):
    Whole.model_validate_json(path.read_text(), strict=True)
    read += 1
for path in sorted(FOLDER.glob("*.sse")):
    for event in path.read_text().split("\n\n"):
        if not event or event.startswith("event: ping"):
            continue
        name, data = event.split("\n")
        kind = ERROR if ERROR and name == "event: error" else EVENT
        assert f"event: {kind.validate_json(data.removeprefix('data: '), strict=True).type}" == name, event
        read += 1
assert read > 50, f"{read} texts in {FOLDER}"
