"""Reads configurations as other people's programs do and prints JSON: `readers.py yaml|hcl FILE...`.

YAML as PyYAML has it, all documents of a file; HCL as python-hcl2 has it.
"""

import json
import sys

kind, files = sys.argv[1], sys.argv[2:]
read = {}
for name in files:
    with open(name, encoding="utf-8") as file:
        if kind == "yaml":
            import yaml

            read[name] = list(yaml.safe_load_all(file))
        else:
            import hcl2

            read[name] = hcl2.load(file)
json.dump(read, sys.stdout)
