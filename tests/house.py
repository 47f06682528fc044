"""Proves the walls of the house from what was built: include directions, libraries of each program, forbidden symbols.

usage: house.py SOURCE BUILD; prints one 'ok' or 'not ok' line a rule.
"""

import pathlib
import re
import subprocess
import sys

source, build = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
bad = 0


def rule(name, faults):
    global bad
    print(("not ok " if faults else "ok ") + name)
    for fault in list(faults)[:10]:
        print("   " + fault)
        bad += 1


# --- who includes whom -------------------------------------------------------------------------------------------
SHARED = {
    "base": {"err", "mem", "buf", "secret", "clock", "log", "text", "json", "io", "sandbox", "cron"},
    "loop": {"loop"},
    "pki": {"pki", "jose", "tls"},
    "manifest": {"manifest", "manifest_types", "manifest_parts", "manifest_token", "manifest_consumer", "foreign"},
    "wire": {"wire", "msg", "room"},
}
OWNER = {header: folder for folder, headers in SHARED.items() for header in headers}
BELOW = {
    "base": {"base"},
    "loop": {"base", "loop"},
    "pki": {"base", "pki"},
    "manifest": {"base", "manifest"},
    "wire": {"base", "loop", "wire"},
}
ROOMS = {"warden": "warden", "cli": "warden", "keeper": "keeper", "courier": "courier", "desk": "desk"}

strays, plan_strays, unknown = [], [], []
for path in sorted(source.glob("src/**/*.[ch]")) + sorted(source.glob("include/kt/*.h")):
    parts = path.relative_to(source).parts
    folder = parts[1] if parts[0] == "src" else OWNER.get(path.stem)
    if folder is None:
        unknown.append(str(path))
        continue
    for include in re.findall(r'#include "([^"]+)"', path.read_text()):
        head = include.split("/")[0]
        if head == "kt":
            target = OWNER.get(pathlib.Path(include).stem)
        elif "/" in include:
            target = head
        else:
            continue
        where = f"{path.relative_to(source)} includes {include}"
        if folder in BELOW:
            if target not in BELOW[folder]:
                strays.append(where)
        elif target in ROOMS and ROOMS[target] != ROOMS[folder]:
            strays.append(where)
        if parts[:3] == ("src", "keeper", "plan") and target not in ("base", "manifest"):
            if not include.startswith("keeper/plan/"):
                plan_strays.append(where)
rule("no folder looks up, no room looks into another", strays)
rule("plan/ sees only base and manifest", plan_strays)
rule("every shared header belongs to a folder", unknown)

# --- what each program needs -------------------------------------------------------------------------------------
FORBIDDEN = {
    "keyturn": ["libcurl", "libsqlite3", "libmicrohttpd", "libssl", "libcrypto", "libldns"],
    "keyturn-keeper": ["libcurl", "libssl", "libmicrohttpd", "libnghttp2", "libldns"],
    "keyturn-courier": ["libsqlite3", "libmicrohttpd", "libyaml"],
    "keyturn-desk": ["libsqlite3", "libcurl", "libyaml", "libssl", "libcrypto", "libldns"],
}


def output(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


for program, libraries in FORBIDDEN.items():
    needed = re.findall(r"NEEDED.*\[(.*?)\]", output("readelf", "-d", str(build / program)))
    rule(f"{program} links only its room's libraries",
         [f"{program} needs {lib}" for lib in needed for word in libraries if lib.startswith(word)])


def undefined(program):
    return set(re.findall(r" U ([\w.]+)", output("nm", "-D", "--undefined-only", str(build / program)).replace("@", " ")))


def defined(program):
    return set(re.findall(r" [tTrRdDbB] (\w+)", output("nm", str(build / program))))


rule("the keeper opens no connection",
     [name for name in undefined("keyturn-keeper") if name in ("connect", "bind", "listen", "accept", "accept4", "getaddrinfo") or name.startswith("curl_")])
for program in ("keyturn-courier", "keyturn-desk"):
    rule(f"{program} has no function for sealed keys and no store",
         [name for name in defined(program) if name.startswith(("kt_keys_", "kt_store_", "kt_volume_"))])
rule("the desk makes no outbound connection", [name for name in undefined("keyturn-desk") if name in ("connect", "getaddrinfo")])

# --- habits ------------------------------------------------------------------------------------------------------
BANNED = r"\b(strcpy|strcat|sprintf|vsprintf|atoi|atol|strtok|system|popen|sleep|usleep|mktemp|tmpnam|gets|signal)\s*\("
hits = []
for path in sorted(source.glob("src/**/*.c")):
    text = re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', lambda m: "\n" * m.group().count("\n"), path.read_text(), flags=re.S)
    for number, line in enumerate(text.split("\n"), 1):
        if re.search(BANNED, line):
            hits.append(f"{path.relative_to(source)}:{number}: {line.strip()[:80]}")
rule("no banned function is called", hits)
rule("no file is longer than 800 lines",
     [f"{p.relative_to(source)}: {n}" for p in source.glob("src/**/*.[ch]") if (n := p.read_text().count("\n")) > 800])
rule("every file opens with what it is for",
     [str(p.relative_to(source)) for p in source.glob("src/**/*.[ch]") if not p.read_text().startswith("/*")])
sys.exit(1 if bad else 0)
