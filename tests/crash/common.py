"""A keyturn whose whole folder can be put back to an earlier moment, run under the killer, and looked at for what must never be seen."""

import base64
import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from lib.agent import BUILD, Keyturn

KILLER = BUILD / "tests" / "crash" / "killer"
GENERATION = re.compile(r"^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d{9}$")
SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
PEM_END = b"-----END CERTIFICATE-----\n"


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), Path("/nonexistent"))


class Torn(AssertionError):
    """Something that no reader may ever see, or that must not be left."""


def certificates(data):
    return [x509.load_pem_x509_certificate(part + PEM_END) for part in data.split(PEM_END) if part.strip()]


def signed_by(cert, issuer):
    key = issuer.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(cert.signature_hash_algorithm))
        else:
            key.verify(cert.signature, cert.tbs_certificate_bytes, padding.PKCS1v15(), cert.signature_hash_algorithm)
    except Exception:
        return False
    return cert.issuer == issuer.subject


class Under:
    """A command that ran under the killer: its result and what the killer saw."""

    def __init__(self, result, report):
        self.result, self.points, self.died, self.count = result, [], [], 0
        for line in report.splitlines():
            word, _, rest = line.partition(" ")
            if word == "point":
                number, kind, call, *path = rest.split(" ", 3)
                self.points.append((int(number), kind, call, path[0] if path else ""))
            elif word == "died":
                self.died.append(rest)
            elif word == "count":
                self.count = int(rest)


class House(Keyturn):
    def __init__(self, **kw):
        super().__init__(**kw)
        self.env["LC_ALL"] = "C.UTF-8"
        self.base = self.root.with_name(self.root.name + ".base")
        self.report = self.root.with_name(self.root.name + ".report")
        self.bin = self.root / "bin"
        self.bin.mkdir(mode=0o755)
        self.volumes = []  # folders of Consumers
        self.canaries = []
        self.seen_sets = {}  # what was found in sets that were looked at before
        self.roots = []  # of CAs whose root is not delivered

    def __exit__(self, *args):
        super().__exit__(*args)
        shutil.rmtree(self.base, ignore_errors=True)
        self.report.unlink(missing_ok=True)

    # --- moments

    def keep(self):
        """Remembers everything below the folder."""
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.copytree(self.root, self.base, symlinks=True)

    def back(self):
        """Puts everything back to what keep() remembered."""
        for entry in os.scandir(self.root):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        shutil.copytree(self.base, self.root, symlinks=True, dirs_exist_ok=True)

    # --- the killer

    def under(self, mode, *args, classes="wm", program="keyturn-keeper", env=None, timeout=30):
        self.prefix = tuple(map(str, (KILLER, "-r", self.report, "-c", classes, "-p", program, *mode)))
        try:
            result = self.run(*args, env=env, timeout=timeout)
        finally:
            self.prefix = ()
        for canary in (b"PRIVATE KEY", *self.canaries):
            if canary.decode() in result.err + result.out:
                raise Torn(f"a secret is shown: {result!r}")
        return Under(result, self.report.read_text())

    def script(self, name, text):
        path = self.bin / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    # --- what is served

    def all_volumes(self):
        found = list(self.volumes)
        if self.secrets.is_dir():
            found += [Path(e.path) for e in os.scandir(self.secrets) if e.is_dir(follow_symlinks=False)]
        return [v for v in found if v.is_dir()]

    def served(self):
        """{volume's name: what it serves}; raises Torn where a reader would see half a set."""
        seen = {}
        for volume in self.all_volumes():
            link = volume / "..data"
            if not os.path.lexists(link):
                continue
            generation = os.readlink(link)
            if not GENERATION.match(generation) or not (volume / generation).is_dir():
                raise Torn(f"{link} -> {generation}, which is no generation")
            names = sorted(os.listdir(volume / generation))
            if not names:
                raise Torn(f"{volume} serves nothing")
            for name in names:
                if not os.path.islink(volume / name) or os.readlink(volume / name) != f"..data/{name}":
                    raise Torn(f"{volume / name} is not the stable link")
            seen[volume.name] = self.one_set(volume, volume / generation, names)
        return seen

    def one_set(self, volume, folder, names):
        data = {n: (folder / n).read_bytes() for n in names}
        whole = tuple(data.items())
        if whole not in self.seen_sets:
            if len(self.seen_sets) >= 64:
                self.seen_sets.clear()
            self.seen_sets[whole] = self.look_at(volume, folder, names, data)
        return self.seen_sets[whole]

    def look_at(self, volume, folder, names, data):
        for name, content in data.items():
            if not content:
                raise Torn(f"{folder / name} is empty")
        found = []
        for crt in [n for n in names if n.endswith(".crt") and n != "ca.crt"]:
            stem = crt[:-4]
            chain = certificates(data[crt])
            key = serialization.load_pem_private_key(data[f"{stem}.key"], None)
            if key.public_key().public_bytes(*SPKI) != chain[0].public_key().public_bytes(*SPKI):
                raise Torn(f"{volume}: key and certificate are of different generations")
            roots = [*self.roots, *(certificates(data["ca.crt"]) if "ca.crt" in data else [])]
            for cert, issuer in zip(chain, [*chain[1:], None]):
                if not any(signed_by(cert, i) for i in ([issuer] if issuer else [*roots, cert])):
                    raise Torn(f"{volume}: the chain of {crt} is broken")
            found.append(f"{chain[0].serial_number:x}")
        for token in [n for n in names if n == "token"]:
            parts = data[token].split(b".")
            if "header" in data and data["header"].strip() != b"Authorization: Bearer " + data[token]:
                raise Torn(f"{volume}: header and token are of different generations")
            if len(parts) == 3:
                found.append(json.loads(base64.urlsafe_b64decode(parts[1] + b"=="))["jti"].lstrip("0"))
            else:  # opaque: named by its fingerprint
                found.append("sha256:" + hashlib.sha256(data[token]).hexdigest()[:32])
        if "credentials.json" in data:
            pair = json.loads(data["credentials.json"])
            if (data["client-id"].decode(), data["client-secret"].decode()) != (pair["client_id"], pair["client_secret"]):
                raise Torn(f"{volume}: id and secret are of different generations")
            found.append(pair["client_id"])
        if "aws-process.json" in data:
            session = json.loads(data["aws-process.json"])
            for member in ("AccessKeyId", "SecretAccessKey", "SessionToken"):
                if f"= {session[member]}\n".encode() not in data["aws-credentials"]:
                    raise Torn(f"{volume}: {member} is of different generations")
            found.append(session["AccessKeyId"])
        return " ".join(found)

    def leftovers(self):
        """What an interrupted run may not leave: temporary links. And how many generations each volume has."""
        left, generations = [], {}
        for volume in self.all_volumes():
            names = [n for n in os.listdir(volume) if n.startswith("..") and n != "..data"]
            generations[str(volume)] = sum(bool(GENERATION.match(n)) for n in names)
            left += [str(volume / n) for n in names if not GENERATION.match(n)]
        return left, generations

    def later(self, *args, minutes=2):
        """The same some minutes later, when what is kept for a while may go. None where the clock can't be moved."""
        if not FAKETIME.exists():
            return None
        return self.run(*args, env={"KEYTURN_TEST_ENV": "1", "LD_PRELOAD": str(FAKETIME), "FAKETIME": f"+{60 * minutes}"})

    # --- what the store says

    def obtained(self):
        """{resource: serials in the order in which they were obtained}."""
        found = {}
        for record in self.json("audit")["records"]:
            if record["step"] == "obtained" and record["outcome"] == "ok":
                found.setdefault(record["resource"].rsplit("/", 1)[1], []).append(
                    (record["revision"], record.get("serial") or record.get("token_id")))
        return found

    def rows(self):
        return {row["name"]: row for row in self.json("status")["credentials"]}


def wait_a_moment():
    time.sleep(1.1)
