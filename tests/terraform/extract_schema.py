"""Makes aws-schema.json from HashiCorp's npm package @cdktf/provider-aws: what terraform/aws uses, and no more.

    extract_schema.py PROVIDER-AWS.tgz >aws-schema.json

The package is made from the provider's own schema. Its source maps carry the TypeScript, whose comments say of each
attribute whether it is computed, optional or required. Resources are found by looking into terraform/aws.
"""

import base64
import json
import pathlib
import re
import sys
import tarfile

MODULES = pathlib.Path(__file__).parents[2] / "terraform" / "aws"
SIMPLE = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getStringMapAttribute": ["map", "string"],
    "getNumberMapAttribute": ["map", "number"],
    "getBooleanMapAttribute": ["map", "bool"],
    "getNumberListAttribute": ["list", "number"],
    "getListAttribute": ["list", "string"],
}
MAPS = {"StringMap": ["map", "string"], "NumberMap": ["map", "number"], "BooleanMap": ["map", "bool"]}
FLAGS = re.compile(r"// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n")


def used():
    text = "\n".join(path.read_text() for path in sorted(MODULES.rglob("*.tf")))
    kinds = {"resource": set(), "data": set()}
    for kind, name in re.findall(r'^(resource|data) "(aws_\w+)"', text, re.M):
        kinds[kind].add(name)
    return kinds


def source(archive, folder):
    script = archive.extractfile(f"package/lib/{folder}/index.js").read().decode()
    encoded = re.search(r"sourceMappingURL=data:application/json;base64,(\S+)", script).group(1)
    return json.loads(base64.b64decode(encoded))["sourcesContent"][0]


def classes(text):
    """Name of each class, what it extends, its body."""
    found = {}
    for match in re.finditer(r"^export class (\w+) extends cdktf\.(\w+) \{\n(.*?)^\}", text, re.M | re.S):
        found[match.group(1)] = match.group(2), match.group(3)
    return found


def nesting(text, name):
    """How the configuration spells a nested thing: list, set, map or struct; looked for in the HCL writers."""
    pattern = rf"\b{name}: \{{\n[^{{}}]*?isBlock: \w+,\n\s*type: \"(\w+)\",\n\s*storageClassType: \"(\w+)\""
    return {match.group(2): match.group(1) for match in re.finditer(pattern, text)}


def block(text, all_classes, class_name):
    body = all_classes[class_name][1]
    # The comments stand before the private member; the next comment ends its part.
    parts = list(FLAGS.finditer(body))
    attributes, blocks = {}, {}
    for index, match in enumerate(parts):
        name, computed, optional, required = match.group(1), *(word == "true" for word in match.groups()[1:])
        end = parts[index + 1].start() if index + 1 < len(parts) else len(body)
        part = body[match.end():end]
        flags = "".join(letter for letter, on in (("r", required), ("o", optional), ("c", computed)) if on)
        nested = re.search(r"private _\w+ = new (?:cdktf\.)?(\w+)\(this, \"\w+\"(?:, (true|false))?\)", part)
        if nested and nested.group(1) in all_classes:
            holder = nested.group(1)
            kind = all_classes[holder][0]
            single = kind == "ComplexObject"
            element = holder if single else holder.removesuffix("List").removesuffix("Map") + "OutputReference"
            spelled = nesting(text, name)
            stem = holder.removesuffix("OutputReference")
            stored = spelled.get(stem + "List" if single else stem) or spelled.get(stem)
            mode = stored or ("set" if nested.group(2) == "true" else "list")
            if kind == "ComplexMap":
                mode = "map"
            inner = block(text, all_classes, element)
            if computed:
                # Only an attribute can be computed: its type is a list or set of objects.
                types = {key: value[0] for key, value in inner["attributes"].items()}
                types |= {key: [value["mode"], ["object", {k: v[0] for k, v in value["attributes"].items()}]]
                          for key, value in inner["blocks"].items()}
                kind = ["object", types] if mode == "struct" else [mode, ["object", types]]
                attributes[name] = [kind, flags]
            else:
                mode = "single" if mode == "struct" else mode
                blocks[name] = {"mode": mode, **inner}
                if required:
                    blocks[name]["min"] = 1
                if single and mode != "single":
                    blocks[name]["max"] = 1
            continue
        if nested and nested.group(1) in MAPS:
            attributes[name] = [MAPS[nested.group(1)], flags]
            continue
        getter = re.search(r"this\.(get\w+Attribute)\(", part)
        if getter and getter.group(1) in SIMPLE:
            kind = SIMPLE[getter.group(1)]
            if "Fn.tolist" in part:
                kind = ["set", kind[1]]
        elif "interpolationForAttribute" in part:
            kind = ["list", ["map", "string"]] if "cdktf.IResolvable | { [key: string]: string }[]" in part else "dynamic"
        else:
            raise SystemExit(f"{class_name}.{name}: type not understood:\n{part[:400]}")
        attributes[name] = [kind, flags]
    return {"attributes": attributes, "blocks": blocks}


def main():
    archive = tarfile.open(sys.argv[1])
    kinds = used()
    out = {"source": "@cdktf/provider-aws 21.22.0 (npm), made from hashicorp/aws 6.25.0, MPL-2.0",
           "provider": PROVIDER, "resource": {}, "data": {}}
    for kind in ("resource", "data"):
        for name in sorted(kinds[kind]):
            folder = ("data-aws-" if kind == "data" else "") + name.removeprefix("aws_").replace("_", "-")
            text = source(archive, folder)
            all_classes = classes(text)
            main_class = next(name for name, (base, _) in all_classes.items()
                              if base in ("TerraformResource", "TerraformDataSource"))
            out[kind][name] = block(text, all_classes, main_class)
    json.dump(out, sys.stdout, separators=(",", ":"), sort_keys=True)
    print()


# Of the provider's own configuration only what an example may say.
PROVIDER = {
    "attributes": {"region": ["string", "o"], "profile": ["string", "o"], "allowed_account_ids": [["set", "string"], "o"]},
    "blocks": {"default_tags": {"mode": "list", "max": 1, "attributes": {"tags": [["map", "string"], "o"]}, "blocks": {}}},
}


if __name__ == "__main__":
    main()
