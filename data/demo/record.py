"""Takes a picture of a rotation: what `keyturn status` and `keyturn audit` say, second by second, as an animated SVG.

usage: record.py KEYTURN SECONDS FILE, with the environment that leads KEYTURN to the agent (`run --record FILE` does it).
The frames lie under each other and a style sheet moves them by steps: no script, nothing to load, light and dark.
"""

import html
import re
import subprocess
import sys
import time

KEYTURN, SECONDS, FILE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ROWS, WIDTH, LINE, EVENTS = 13, 103, 20, 6
EVERY = 1.0
STYLE = """
:root{--bg:#fff;--bar:#f0f2f4;--edge:#d0d7de;--fg:#1f2328;--dim:#656d76;--ok:#1a7f37;--busy:#9a6700;--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--bar:#161b22;--edge:#30363d;--fg:#e6edf3;--dim:#8d96a0;
--ok:#3fb950;--busy:#d29922;--bad:#f85149}}
text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--fg);white-space:pre}
.d{fill:var(--dim)}.o{fill:var(--ok)}.b{fill:var(--busy)}.x{fill:var(--bad)}
"""
WORDS = {"proved": "o", "delivered": "o", "issuing": "b", "waiting": "b", "notified": "b", "switched": "b",
         "failing": "x", "failed": "x", "expired": "x"}


def ask(*argv):
    return subprocess.run([KEYTURN, *argv], capture_output=True, text=True, check=False).stdout.splitlines()


def without(lines, name):
    """A table without its last column, if that has the given name."""
    at = lines[0].find(name)
    return [line[:at].rstrip() for line in lines] if at > 0 else lines


def snapshot():
    """The lines of one frame: the table of credentials, and the newest of the trail without its day."""
    status = ask("status")
    trail = ask("audit", "-n", str(EVENTS))
    if len(status) < 2 or len(trail) < 2:
        return None
    day = len("2026-11-23T")
    trail = [trail[0][:4] + trail[0][4 + day:], *(line[day:] for line in trail[1:EVENTS + 1])]
    return without(status, "ERROR"), [cut(line) for line in trail]


def cut(line):
    line = line.rstrip()
    return line if len(line) <= WIDTH else line[:WIDTH - 1] + "…"


def mark(line):
    """One line with the words that say how things are in colour."""
    words = re.findall(r"\s+|\S+", html.escape(line, quote=False))
    return "".join(f'<tspan class="{WORDS[word]}">{word}</tspan>' if word in WORDS else word for word in words)


def frame(index, shot):
    status, trail = shot
    lines = [("d", "$ keyturn status"), ("d", status[0]), *(("", line) for line in status[1:4]), ("", ""),
             ("d", f"$ keyturn audit -n {EVENTS}"), ("d", trail[0]), *(("", line) for line in trail[1:])]
    out = []
    for row, (kind, line) in enumerate(lines):
        if line:
            attr = f' class="{kind}"' if kind else ""
            text = html.escape(line, quote=False) if kind else mark(line)
            out.append(f'<text x="16" y="{index * HEIGHT + (row + 1) * LINE}"{attr}>{text}</text>')
    return "".join(out)


HEIGHT = (ROWS + 2) * LINE


def render(shots):
    """The whole picture."""
    width = 16 * 2 + int(WIDTH * 7.83)
    count = len(shots)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + 34}" width="{width}" '
             f'height="{HEIGHT + 34}" role="img" aria-label="keyturn rotates two certificates and a token">',
             f"<style>{STYLE}#s{{animation:s {count * EVERY:.0f}s steps({count}) infinite}}"
             f"@keyframes s{{to{{transform:translateY(-{count * HEIGHT}px)}}}}"
             "@media(prefers-reduced-motion:reduce){#s{animation:none}}</style>",
             f'<rect x=".5" y=".5" width="{width - 1}" height="{HEIGHT + 33}" rx="8" fill="var(--bg)" stroke="var(--edge)"/>',
             f'<path d="M.5 34V8.5a8 8 0 0 1 8-8H{width - 8.5}a8 8 0 0 1 8 8V34z" fill="var(--bar)" stroke="var(--edge)"/>',
             '<text x="16" y="22" class="d">./dev demo</text>',
             f'<clipPath id="c"><rect x="1" y="35" width="{width - 2}" height="{HEIGHT - 2}"/></clipPath>',
             '<g clip-path="url(#c)"><g transform="translate(0 40)"><g id="s">']
    parts.extend(frame(index, shot) for index, shot in enumerate(shots))
    parts.append("</g></g></g></svg>\n")
    return "".join(parts)


def main():
    shots = []
    end = time.monotonic() + SECONDS
    at = time.monotonic()
    while at < end:
        shot = snapshot()
        if shot is not None:
            shots.append(shot)
        at += EVERY
        time.sleep(max(0.0, at - time.monotonic()))
    if not shots:
        sys.exit("record: the agent said nothing; nothing was written")
    with open(FILE, "w", encoding="utf-8") as out:
        out.write(render(shots))
    print(f"demo: {len(shots)} seconds are in {FILE}")


if __name__ == "__main__":
    main()
