"""Says whether the demo showed what it promises: every credential rotated twice at least, each rotation proved."""

import json
import re
import sys

status, audit = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:3])
load = open(sys.argv[3], encoding="utf-8").read()
records = audit["records"]
faults = []
for credential in status["credentials"]:
    name = credential["name"]
    mine = [r for r in records if r.get("resource") == f"{credential['kind']}/{credential['namespace']}/{name}"]
    switched = {r.get("revision") for r in mine if r["step"] == "switched" and r["outcome"] == "ok"}
    proved = {r.get("revision") for r in mine if r["step"] == "proved" and r["outcome"] == "ok"}
    newest = max(switched, default=0)
    unproved = sorted(switched - proved - {newest})
    if len(switched) < 3:
        faults.append(f"{name} rotated {max(len(switched) - 1, 0)} times only")
    if unproved:
        faults.append(f"{name}: rotations {unproved} were not proved")
    print(f"{name}: {len(switched) - 1} rotations, {len(proved)} of {len(switched)} sets proved")
if re.search(r"Socket errors|Non-2xx", load):
    faults.append("requests failed under load: " + "; ".join(re.findall(r"(Socket errors.*|Non-2xx.*)", load)))
match = re.search(r"(\d+) requests in", load)
print(f"{match.group(1) if match else 0} requests under load, none failed" if not faults else "\n".join(faults))
sys.exit(1 if faults or not match else 0)
