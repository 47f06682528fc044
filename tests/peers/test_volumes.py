"""Secret volumes as they lie on the disk: layout, modes, owners, drift, generations, every format, read by others."""

import calendar
import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from lib.certs import Authority, check_set, key_pem, load, pem
from lib.manifests import ca_issuer, certificate, consumer, projected
from lib.servers import program
from lib.wait import until

HOUR = {"duration": "1h", "renewBefore": "20m"}
GENERATION = re.compile(r"^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d{9}$")


@pytest.fixture
def ca(kt):
    authority = Authority()
    kt.secret("ca-root", tls__crt=authority.pem(), tls__key=key_pem(authority.key))
    return authority


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def generations(folder):
    return sorted(n for n in os.listdir(folder) if GENERATION.match(n))


def test_layout_and_modes(kt, ca):
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR))
    kt.ok("renew")
    folder = kt.volume("web-tls")
    names = sorted(os.listdir(folder))
    data = os.readlink(folder / "..data")
    assert GENERATION.match(data), data
    assert names == sorted([data, "..data", "tls.crt", "tls.key", "ca.crt"]), names
    for file in ("tls.crt", "tls.key", "ca.crt"):
        assert os.readlink(folder / file) == f"..data/{file}"
    assert mode(folder / data) == 0o750
    assert mode(folder / "tls.key") == 0o600
    assert mode(folder / "tls.crt") == 0o644 and mode(folder / "ca.crt") == 0o644
    check_set(folder, ["web.example"], ca.pem())
    assert load(kt.read("web-tls", "ca.crt"))[0] == ca.cert
    assert kt.read("web-tls", "tls.key").startswith(b"-----BEGIN EC PRIVATE KEY-----"), "PKCS1 is the default encoding"


def test_namespaces(kt, ca):
    issuer, cert = ca_issuer(), certificate("web", "ca", **HOUR)
    for document in (issuer, cert):
        document["metadata"]["namespace"] = "shop"
    root = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca-root", "namespace": "shop"},
            "stringData": {"tls.crt": ca.pem().decode(), "tls.key": key_pem(ca.key).decode()}}
    path = kt.manifest("web", issuer, cert, root)
    path.chmod(0o600)
    kt.ok("renew")
    check_set(kt.volume("web-tls", "shop"), ["web.example"], ca.pem())
    assert not kt.volume("web-tls").exists()


def test_previous_generation_stays_a_while(kt, ca):
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR))
    kt.ok("renew")
    first = os.readlink(kt.volume("web-tls") / "..data")
    kt.ok("renew", "--force")
    assert first in generations(kt.volume("web-tls")), "at least one minute"
    assert len(generations(kt.volume("web-tls"))) == 2
    # Whoever holds a folder open has a minute to read on; then everything but the one in use goes.
    running = kt.start()
    until(lambda: len(generations(kt.volume("web-tls"))) == 1, 75, "the generation before is removed", pause=1)
    check_set(kt.volume("web-tls"), ["web.example"], ca.pem())
    assert running.stop() == 0, running.err()


def test_readers_never_see_half_a_set(kt, ca):
    """A reader that resolves ..data once always finds a key and a certificate that belong together."""
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR))
    kt.ok("renew")
    folder, stop, bad, reads = kt.volume("web-tls"), threading.Event(), [], [0]
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def read():
        while not stop.is_set():
            try:
                fd = os.open(folder / "..data", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    parts = []
                    for name in ("tls.crt", "tls.key"):
                        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
                            parts.append(file.read())
                finally:
                    os.close(fd)
                leaf, key = load(parts[0])[0], serialization.load_pem_private_key(parts[1], None)
                if leaf.public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
                    bad.append("a key of another certificate")
            except Exception as error:  # a missing or torn file is what this is about
                bad.append(repr(error))
            reads[0] += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(8):
            kt.ok("renew", "--force")
    finally:
        stop.set()
        thread.join(10)
    assert not bad and reads[0] > 100, (bad[:3], reads)


@pytest.mark.parametrize("harm", ["file", "link", "mode", "folder", "contents"])
def test_drift_is_healed(kt, ca, harm):
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR))
    kt.ok("renew")
    folder = kt.volume("web-tls")
    serial = load(kt.read("web-tls", "tls.crt"))[0].serial_number
    if harm == "file":
        os.unlink(folder / os.readlink(folder / "..data") / "tls.key")
    elif harm == "link":
        os.unlink(folder / "tls.crt")
    elif harm == "mode":
        os.chmod(folder / os.readlink(folder / "..data") / "tls.key", 0o666)
    elif harm == "contents":
        (folder / os.readlink(folder / "..data") / "tls.crt").write_text("not a certificate\n")
    else:
        shutil.rmtree(folder)
    kt.ok("renew")
    check_set(folder, ["web.example"], ca.pem())
    assert load(kt.read("web-tls", "tls.crt"))[0].serial_number == serial, "healed from the store, not issued anew"
    assert mode(folder / "tls.key") == 0o600


def test_running_agent_heals(kt, ca):
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR))
    running = kt.start()
    folder = kt.volume("web-tls")
    until(lambda: (folder / "tls.key").exists(), 10, "delivered")
    shutil.rmtree(folder)
    until(lambda: (folder / "tls.key").exists(), 70, "put back by the agent")
    check_set(folder, ["web.example"], ca.pem())
    assert running.stop() == 0, running.err()


UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}  # or Java takes what is no ASCII in an argument for something else


def keytool(*args):
    return subprocess.run([program("keytool"), *map(str, args)], capture_output=True, text=True, timeout=60, env=UTF8)


def test_delivering_again_has_a_pace_of_its_own(kt, ca):
    """A file stands where the volume belongs: told, not tried over and over, and no attempt at issuing."""
    kt.manifest("set", ca_issuer(), certificate("a", "ca"))
    kt.ok("renew")
    folder = kt.volume("a-tls")
    shutil.rmtree(folder)
    folder.write_text("in the way")
    assert kt.run("renew").status == 4
    row = kt.credential("a")
    assert row["deliverFailures"] == 1 and row["attempts"] == 0, row
    assert row["state"] == "failing" and row["lastError"] == row["deliverError"] and row["nextTry"], row
    why = kt.run("why", "a").out
    assert "1 delivery failed" in why, why
    assert kt.run("renew").status == 4
    running = kt.start()
    time.sleep(2)
    assert kt.credential("a")["deliverFailures"] == 1, "a person has to act: that takes longer than this"
    assert running.stop() == 0
    folder.unlink()
    kt.ok("renew", "a")
    row = kt.credential("a")
    assert row["deliverFailures"] == 0 and row["deliverError"] is None and row["lastError"] is None, row
    assert (folder / "tls.crt").exists()
    kt.ok("audit", "--verify")


@pytest.mark.parametrize("profile", ["Modern2023", "LegacyDES", "LegacyRC2"])
def test_pkcs12_read_by_keytool(kt, ca, profile):
    kt.secret("store", password="changeit-123")
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR, keystores={"pkcs12": {
        "create": True, "profile": profile, "passwordSecretRef": {"name": "store", "key": "password"}}}))
    kt.ok("renew")
    folder = kt.volume("web-tls")
    leaf = check_set(folder, ["web.example"], ca.pem())
    listed = keytool("-list", "-v", "-storetype", "PKCS12", "-keystore", folder / "keystore.p12", "-storepass", "changeit-123")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert "PrivateKeyEntry" in listed.stdout, listed.stdout
    assert f"{leaf.serial_number:x}" in listed.stdout.lower(), listed.stdout
    trusted = keytool("-list", "-v", "-storetype", "PKCS12", "-keystore", folder / "truststore.p12", "-storepass", "changeit-123")
    assert trusted.returncode == 0, trusted.stdout + trusted.stderr
    assert "trustedCertEntry" in trusted.stdout, trusted.stdout
    wrong = keytool("-list", "-storetype", "PKCS12", "-keystore", folder / "keystore.p12", "-storepass", "not-this-one")
    assert wrong.returncode != 0
    assert mode(folder / "keystore.p12") == 0o600
    if profile == "Modern2023":
        key, cert, _ = pkcs12.load_key_and_certificates((folder / "keystore.p12").read_bytes(), b"changeit-123")
        assert cert == leaf
        assert key.public_key().public_numbers() == leaf.public_key().public_numbers()


def load_store(*args):
    """A Java program over a key store; text of both ends, and whether it was content."""
    done = subprocess.run([program("java"), "-Duser.language=en", str(Path(__file__).with_name("LoadStore.java")), *map(str, args)],
                          capture_output=True, text=True, timeout=120, env=UTF8)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("algorithm", ["ECDSA", "RSA", "Ed25519"])
def test_jks_read_by_keytool_and_java(kt, ca, algorithm):
    kt.secret("store", password="Schlüssel-123")
    asked = certificate("web", "ca", **HOUR, keystores={"jks": {
        "create": True, "alias": "Mule-Key", "passwordSecretRef": {"name": "store", "key": "password"}}})
    asked["spec"]["privateKey"] = {"algorithm": algorithm, "rotationPolicy": "Always"}
    kt.manifest("web", ca_issuer(), asked)
    kt.ok("renew")
    folder = kt.volume("web-tls")
    leaf = check_set(folder, ["web.example"], ca.pem())
    password, keys, trust = "Schlüssel-123", folder / "keystore.jks", folder / "truststore.jks"
    assert mode(keys) == 0o600 and mode(trust) == 0o644
    if algorithm == "ECDSA":
        listed = keytool("-list", "-v", "-storetype", "JKS", "-keystore", keys, "-storepass", password)
        assert listed.returncode == 0, listed.stdout + listed.stderr
        assert "Keystore type: JKS" in listed.stdout and "Alias name: mule-key" in listed.stdout, listed.stdout
        assert "PrivateKeyEntry" in listed.stdout and f"{leaf.serial_number:x}" in listed.stdout.lower(), listed.stdout
        trusted = keytool("-list", "-keystore", trust, "-storepass", password)
        assert trusted.returncode == 0 and "ca, " in trusted.stdout and "trustedCertEntry" in trusted.stdout, trusted.stdout
        wrong = keytool("-list", "-storetype", "JKS", "-keystore", keys, "-storepass", "not-this-one")
        assert wrong.returncode != 0 and "password was incorrect" in wrong.stdout, wrong.stdout
    for kind in ("JKS", "PKCS12"):  # Java opens either by either name
        good, text = load_store(kind, keys, password, "MULE-KEY", password)
        assert good and f" {leaf.serial_number:x} chain " in text, text
        assert f"made {calendar.timegm(leaf.not_valid_before.timetuple()) * 1000}" in text, text
    good, text = load_store("JKS", trust, password)
    assert good and f"trusted ca {ca.cert.serial_number:x}" in text, text
    if algorithm != "ECDSA":
        return
    good, text = load_store("JKS", keys, "not-this-one", "mule-key", password)
    assert not good and "password was incorrect" in text, text
    good, text = load_store("JKS", keys, password, "mule-key", "not-this-one")
    assert not good and "Cannot recover key" in text, text
    good, text = load_store("JKS", keys, password, "certificate", password)
    assert not good and "no key under certificate" in text, text
    spoilt = bytearray(keys.read_bytes())
    assert spoilt[18:26] == b"mule-key"
    spoilt[18] ^= 1
    (kt.root / "spoilt.jks").write_bytes(spoilt)
    good, text = load_store("JKS", kt.root / "spoilt.jks", password)
    assert not good and "tampered with" in text, text
    assert b"Schl" not in keys.read_bytes() and b"Schl" not in trust.read_bytes()


def test_jks_delivered_again_is_the_same_file(kt, ca):
    """No salt and no clock in it: what is lost is put back as it was, and a check finds no drift in what is in place."""
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR, keystores={
        "jks": {"create": True, "password": "changeit"}, "pkcs12": {"create": True, "password": "changeit", "profile": "LegacyDES"}}))
    kt.ok("renew")
    folder = kt.volume("web-tls")
    before = {name: (folder / name).read_bytes() for name in ("keystore.jks", "truststore.jks", "tls.key")}
    assert (folder / "keystore.p12").exists()
    shutil.rmtree(folder)
    kt.ok("renew")
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_jks_password_is_missing(kt, ca):
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR, keystores={
        "jks": {"create": True, "passwordSecretRef": {"name": "nowhere", "key": "password"}}}))
    failed = kt.run("renew")
    assert failed.status != 0 and "nowhere" in failed.out + failed.err, failed.out + failed.err
    assert not (kt.volume("web-tls") / "keystore.jks").exists()


def test_other_formats(kt, ca):
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR, additionalOutputFormats=[{"type": "CombinedPEM"}, {"type": "DER"}]),
                certificate("rsa", "ca", **HOUR), certificate("ed", "ca", **HOUR))
    text = (kt.manifests / "web.yaml").read_text()
    parts = text.split("---\n")
    parts[2] = parts[2].replace("algorithm: ECDSA", "algorithm: RSA").replace("size: 256", "size: 2048\n    encoding: PKCS8")
    parts[3] = parts[3].replace("algorithm: ECDSA", "algorithm: Ed25519").replace("    size: 256\n", "")
    (kt.manifests / "web.yaml").write_text("---\n".join(parts))
    kt.ok("renew", timeout=60)
    combined = kt.read("web-tls", "tls-combined.pem")
    assert combined.index(b"PRIVATE KEY") < combined.index(b"CERTIFICATE")
    assert load(combined)[0] == load(kt.read("web-tls", "tls.crt"))[0]
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = serialization.load_der_private_key(kt.read("web-tls", "key.der"), None)
    assert der.public_key().public_bytes(*spki) == load(combined)[0].public_key().public_bytes(*spki)
    assert mode(kt.volume("web-tls") / "tls-combined.pem") == 0o600 and mode(kt.volume("web-tls") / "key.der") == 0o600
    assert kt.read("rsa-tls", "tls.key").startswith(b"-----BEGIN PRIVATE KEY-----")
    assert serialization.load_pem_private_key(kt.read("rsa-tls", "tls.key"), None).key_size == 2048
    check_set(kt.volume("ed-tls"), ["ed.example"], ca.pem())


def test_chain_of_cas(kt, ca):
    """A CA that keyturn issues signs for others; the chain is delivered whole."""
    middle = certificate("middle", "ca", names=["middle.example"], commonName="middle", isCA=True, **HOUR)
    middle["spec"]["usages"] = ["cert sign", "crl sign"]
    kt.manifest("web", ca_issuer(), middle, ca_issuer("sub", "middle-tls"), certificate("leaf", "sub", duration="30m", renewBefore="10m"))
    kt.ok("renew", timeout=60)
    check_set(kt.volume("leaf-tls"), ["leaf.example"], ca.pem())
    chain = load(kt.read("leaf-tls", "tls.crt"))
    assert len(chain) >= 2 and chain[1] == load(kt.read("middle-tls", "tls.crt"))[0]


def test_self_signed_and_its_own_ca(kt):
    root = certificate("root", "self", names=["root.example"], commonName="root", isCA=True, **HOUR)
    kt.manifest("web", {"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "self"},
                        "spec": {"selfSigned": {}}},
                {**root, "spec": {**root["spec"], "issuerRef": {"name": "self", "kind": "ClusterIssuer"}}},
                ca_issuer("ours", "root-tls"), certificate("web", "ours", duration="30m", renewBefore="10m"))
    kt.ok("renew", timeout=60)
    check_set(kt.volume("web-tls"), ["web.example"], pem(load(kt.read("root-tls", "tls.crt"))[0]))


def test_own_volumes_with_owner_group_and_mode(kt, ca):
    """A consumer's volume: items under names of its own, from two secrets, switched together, under its own owner."""
    folder = kt.root / "edge"
    owner = {}
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        uid, gid = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("daemon").gr_gid
        owner = {"owner": "nobody", "group": "daemon"}
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR), certificate("admin", "ca", **HOUR),
                consumer("edge", volumes=[projected(folder, ("web-tls", {"tls.crt": "web/crt.pem", "tls.key": "web/key.pem"}),
                                                    ("admin-tls", {"tls.key": "admin.key", "tls.crt": "admin.crt"}),
                                                    defaultMode="0440", **owner)]))
    kt.ok("renew")
    for file, secret, key in (("web/crt.pem", "web-tls", "tls.crt"), ("web/key.pem", "web-tls", "tls.key"),
                              ("admin.key", "admin-tls", "tls.key"), ("admin.crt", "admin-tls", "tls.crt")):
        path = folder / file
        assert path.read_bytes() == kt.read(secret, key), file
        info = path.stat()
        assert stat.S_IMODE(info.st_mode) == 0o440, file
        assert (info.st_uid, info.st_gid) == (uid, gid), file
    assert os.path.islink(folder / "..data") and len(generations(folder)) == 1
    generation = os.readlink(folder / "..data")
    kt.ok("renew", "admin", "--force")
    assert os.readlink(folder / "..data") != generation
    assert (folder / "admin.crt").read_bytes() == kt.read("admin-tls", "tls.crt")
    assert (folder / "web/crt.pem").read_bytes() == kt.read("web-tls", "tls.crt")
    if os.geteuid() == 0:
        seen = subprocess.run(["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups", "cat", folder / "web/key.pem"],
                              capture_output=True, timeout=10)
        assert seen.stdout == kt.read("web-tls", "tls.key"), "the owner can read it through every folder above"


def test_item_modes(kt, ca):
    folder = kt.root / "edge"
    volume = projected(folder, ("web-tls", {"tls.crt": "a", "tls.key": "b"}))
    volume["sources"][0]["secret"]["items"][1]["mode"] = "0400"
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR), consumer("edge", volumes=[volume]))
    kt.ok("renew")
    assert mode(folder / "a") == 0o644 and mode(folder / "b") == 0o400


def test_removed_from_the_manifests(kt, ca):
    """What is no longer wanted is not renewed; what lies there is not torn away from under its reader at once."""
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR), certificate("old", "ca", **HOUR))
    kt.ok("renew")
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR))
    kt.ok("renew")
    assert [r["name"] for r in kt.json("status")["credentials"]] == ["web"]


def test_disk_needs_permission(kt, ca, tmp_path):
    """A volume that is not memory-backed needs allowPersistent: true."""
    if subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, timeout=5).stdout.strip() in ("tmpfs", "ramfs"):
        pytest.skip("the temporary folder is in memory here")
    folder = tmp_path / "edge"
    vol = projected(folder, ("web-tls", {"tls.crt": "crt"}))
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR), consumer("edge", volumes=[vol]))
    result = kt.run("renew", timeout=30)
    assert result.status in (1, 2, 4), result
    assert "allowPersistent" in result.err, result
    assert not (folder / "crt").exists()
    vol["allowPersistent"] = True
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR), consumer("edge", volumes=[vol]))
    deadline = time.monotonic() + 20
    while kt.run("renew", "web").status != 0:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert (folder / "crt").read_bytes() == kt.read("web-tls", "tls.crt")


def test_disk_of_secrets_dir(ca, tmp_path, kt):
    """secretsDir on a disk: refused by name, until the settings allow it."""
    if subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, timeout=5).stdout.strip() in ("tmpfs", "ramfs"):
        pytest.skip("the temporary folder is in memory here")
    kt.secrets = tmp_path / "secrets"
    kt.env["KEYTURN_SECRETS_DIR"] = str(kt.secrets)
    kt.manifest("web", ca_issuer(), certificate("web", "ca", **HOUR))
    result = kt.run("renew", timeout=30)
    assert result.status in (1, 2, 4), result
    assert "allowPersistent" in result.err, result
    assert not (kt.secrets / "web-tls" / "tls.key").exists(), "no key on a disk without permission"
    kt.agent_settings(allowPersistent=True)
    deadline = time.monotonic() + 20
    while kt.run("renew", "web").status != 0:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    check_set(kt.volume("web-tls"), ["web.example"], ca.pem())
