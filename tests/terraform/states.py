"""What `run` applied to the schema: the resources of the example, off and on."""

import json
import os
import pathlib

FOLDER = os.environ.get("SPARESITE_TERRAFORM_STATES")


def load(state):
    with open(pathlib.Path(FOLDER) / f"{state}.json", encoding="utf-8") as file:
        return json.load(file)["values"]


def resources(state):
    def walk(module):
        yield from module.get("resources", [])
        for child in module.get("child_modules", []):
            yield from walk(child)

    return [each for each in walk(load(state)["root_module"]) if each["mode"] == "managed"]


def strings(value):
    if isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value
