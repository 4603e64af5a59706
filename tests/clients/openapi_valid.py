"""The gateway's OpenAPI document is valid OpenAPI 3.1, and its examples are what its schemas say.

Argument: the base URL.
"""

import json
import sys
from urllib.request import urlopen

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

with urlopen(sys.argv[1] + "/openapi.json") as answer:
    assert answer.headers["content-type"] == "application/json", answer.headers
    document = json.load(answer)

validate(document, cls=OpenAPIV31SpecValidator)

examples = 0
for path, operations in document["paths"].items():
    for method, operation in operations.items():
        content = isinstance(operation, dict) and operation.get("requestBody", {}).get("content", {})
        for kind in (content or {}).values():
            schema = {**kind["schema"], "components": document["components"]}
            for name, example in kind["examples"].items():
                Draft202012Validator(schema).validate(example["value"])
                examples += 1
assert examples >= 10, examples
print("passed:", len(document["paths"]), "paths,", examples, "examples")
