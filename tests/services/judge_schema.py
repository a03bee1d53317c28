"""What a JSON Schema says of TOML files: `judge_schema.py SCHEMA FILE…` prints a list with null for each
file that it accepts, and the first complaint for each other."""

import json
import sys
import tomllib

import jsonschema


def complaint(validator, path):
    with open(path, "rb") as file:
        errors = validator.iter_errors(tomllib.load(file))
    return next((error.message for error in errors), None)


with open(sys.argv[1]) as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
print(json.dumps([complaint(validator, path) for path in sys.argv[2:]]))
