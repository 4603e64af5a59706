"""Schemathesis against a running gateway: whatever its OpenAPI document allows or forbids is sent, and each answer
must be one that the document has.

Argument: the base URL; the simulated engine serves the model `sim`.
"""

import json
import pathlib
import sys
import tempfile
from urllib.request import urlopen

import schemathesis
from schemathesis.cli import schemathesis as run

LONGEST, SOONEST = 64, 5
url = sys.argv[1]
with urlopen(url + "/openapi.json") as answer:
    document = json.load(answer)
# One model is there.
document["components"]["schemas"]["ModelName"] = {"const": "sim"}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Bounds of the test, not of the API: an answer is short, and nobody wants it sooner than any comes."""
    body = case.body if isinstance(case.body, dict) else {}
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "dimensions"):
        if isinstance(body.get(name), (int, float)) and body[name] > LONGEST:
            body[name] = LONGEST
    options = body.get("options")
    if isinstance(options, dict) and isinstance(options.get("num_predict"), (int, float)):
        options["num_predict"] = min(options["num_predict"], LONGEST)
    try:
        if 0 < float(case.headers.get("x-request-timeout")) < SOONEST:
            case.headers["x-request-timeout"] = str(SOONEST)
    except (TypeError, ValueError):
        pass


with tempfile.TemporaryDirectory() as folder:
    described = pathlib.Path(folder, "openapi.json")
    described.write_text(json.dumps(document))
    # A header that the document does not have is no fault.
    settings = pathlib.Path(folder, "schemathesis.toml")
    settings.write_text("[generation]\nallow-extra-parameters = false\n")
    checks = [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
    ]
    options = ["--config-file", str(settings), "run", str(described), "--url", url, "--checks", ",".join(checks), "--phases", "examples,coverage,fuzzing,stateful"]
    options += ["--max-examples", "4", "--generation-deterministic", "--request-timeout", "20", "--no-color"]
    options += sys.argv[2:]
    run(options)
