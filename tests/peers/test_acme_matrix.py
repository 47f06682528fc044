"""Every challenge type with every kind of name and key, against Pebble with its random faults, on a real BIND."""

import ipaddress
import os
import re
import time

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from lib.agent import Keyturn
from lib.certs import load
from lib.dns import KEYS, SECRET, Bind, nsupdate
from lib.manifests import certificate
from lib.servers import Nginx, Pebble, program

ZONE = "matrix.test"
IN_FLIGHT = 8  # Pebble deadlocks from 16 parallel orders on
KINDS = ("http", "webroot", "alpn", "rfc2136", "exec", "persist")
NAMES = ("name", "wildcard", "ipv4", "ipv6")
KEYS_OF = {"rsa2048": ("RSA", 2048), "rsa3072": ("RSA", 3072), "rsa4096": ("RSA", 4096), "p256": ("ECDSA", 256),
           "p384": ("ECDSA", 384), "ed25519": ("Ed25519", None)}
DNS = ("rfc2136", "exec", "persist")


def possible(kind, name):
    """Records prove names and wildcards; listeners prove names and addresses."""
    return name in ("name", "wildcard") if kind in DNS else name != "wildcard"


PAIRS = [(kind, name) for kind in KINDS for name in NAMES]
CASES = [(*pair, key) for pair in PAIRS if possible(*pair) for key in KEYS_OF if key != "ed25519"]
# What is refused: by us, before the CA is asked; and by the CA, which knows no Ed25519.
CAN_NOT_BE = [(*pair, "p256") for pair in PAIRS if not possible(*pair)]
NOT_THERE = [(*pair, "ed25519") for pair in PAIRS if possible(*pair)]


def identifiers(kind, name, key):
    """(dnsNames, ipAddresses); every certificate has names of its own, as far as loopback has addresses."""
    own = f"{kind}-{name}-{key}.{ZONE}"
    return {"name": ([own], []), "wildcard": ([f"*.{own}"], []), "ipv4": ([], ["127.0.0.1"]), "ipv6": ([], ["::1"])}[name]


def manifest(kind, name, key):
    names, addresses = identifiers(kind, name, key)
    algorithm, size = KEYS_OF[key]
    made = certificate(f"{kind}-{name}-{key}", kind, names=names or ["-"],
                       privateKey={"algorithm": algorithm, **({"size": size} if size else {})})
    if addresses:
        del made["spec"]["dnsNames"]
        made["spec"]["ipAddresses"] = addresses
    return made


class World:
    """BIND with one zone, Pebble that asks it, nginx with a webroot, a program that updates; an issuer for each kind."""

    def __init__(self, tmp, kt):
        self.kt = kt
        self.bind = Bind(tmp).zone(ZONE, ["@ NS ns1", "* A 127.0.0.1"])
        self.pebble = Pebble(tmp, names=self.bind)
        self.pebble.env["PEBBLE_AUTHZREUSE"] = "0"  # each certificate proves its names
        self.by_web = Pebble(tmp, names=self.bind)  # a second one, which looks at the web server's port
        self.by_web.env["PEBBLE_AUTHZREUSE"] = "0"
        self.web = Nginx(kt.root)
        self.root = kt.root / "webroot"
        self.root.mkdir(mode=0o755)
        self.web.files(self.root, self.by_web.http_port)
        self.web.servers.append(f"\tserver {{ listen [::1]:{self.by_web.http_port}; location / {{ root {self.root}; }} }}")

    def __enter__(self):
        self.bind.start()
        self.pebble.start()
        self.by_web.start()
        self.web.start()
        self.prepare()
        return self

    def __exit__(self, *_):
        self.web.stop()
        self.by_web.stop()
        self.pebble.stop()
        self.bind.stop()

    def prepare(self):
        kt, bind = self.kt, self.bind
        kt.agent_settings(limits={"perIssuer": IN_FLIGHT},
                          listeners={"http01": f":{self.pebble.http_port}", "tlsAlpn01": f":{self.pebble.tls_port}"},
                          dns01={"recursiveNameservers": [f"127.0.0.1:{bind.port}"], "recursiveNameserversOnly": True,
                                 "propagationTimeout": "30s"})
        kt.secret("tsig", tsig__secret=SECRET)
        path = kt.root / "update.sh"
        # More than one record may be out below one name, so each goes by its value.
        path.write_text(f"""#!/bin/sh
set -e
case $1 in
present) what="update add $2. 1 TXT $3" ;;
cleanup) what="update delete $2. TXT $3" ;;
esac
printf 'server 127.0.0.1 {bind.port}\\nzone {ZONE}\\n%s\\nsend\\n' "$what" | {program("nsupdate")} -y {KEYS["kt-sha256"]}:kt-sha256:{SECRET}
""")
        path.chmod(0o755)
        run = {"argv": [str(path)], "timeout": "20s", **({"user": "root"} if os.geteuid() == 0 else {})}
        solvers = {
            "http": {"http01": {"ingress": {}}},
            "webroot": {"http01": {"ingress": {}}},
            "alpn": {"tlsAlpn01": {}},
            "rfc2136": {"dns01": {"rfc2136": {"nameserver": f"127.0.0.1:{bind.port}", "tsigKeyName": "kt-sha256",
                                              "tsigSecretSecretRef": {"name": "tsig", "key": "tsig.secret"},
                                              "tsigAlgorithm": "HMACSHA256"}}},
            "exec": {"dns01": {"exec": {"convention": "Keyturn", "exec": run}}},
            "persist": {"dnsPersist01": {}},
        }
        kt.manifest("issuers", *(self.server(kind).issuer(kind, webroot=self.root if kind == "webroot" else None,
                                                          solvers=[solvers[kind]]) for kind in KINDS))

    def server(self, kind):
        return self.by_web if kind == "webroot" else self.pebble

    def publish_for_good(self, cases):
        """The records of dns-persist-01, for the account that a first refusal names."""
        self.kt.manifest("set", manifest("persist", "name", "p256"))
        refused = self.kt.run("renew", timeout=60)
        assert refused.status != 0, "there is no record yet"
        found = re.search(r'"?([a-z.]+); accounturi=([^"; ]+)', refused.err)
        assert found, refused
        value = f"{found[1]}; accounturi={found[2]}; policy=wildcard"
        names = {identifiers(*case)[0][0].removeprefix("*.") for case in cases if case[0] == "persist"}
        nsupdate(self.bind.port, [f"zone {ZONE}", *(f'update add _validation-persist.{name}. 60 TXT "{value}"' for name in sorted(names))])


def check(world, case):
    """The delivered set: key type, names, and a chain to the CA's root."""
    kind, name, key = case
    folder = world.kt.volume(f"{kind}-{name}-{key}-tls")
    assert folder.joinpath("tls.crt").exists(), f"{case}: {world.kt.run('why', f'{kind}-{name}-{key}').out}"
    leaf = load((folder / "tls.crt").read_bytes())[0]
    algorithm, size = KEYS_OF[key]
    public = leaf.public_key()
    wanted = {"RSA": rsa.RSAPublicKey, "ECDSA": ec.EllipticCurvePublicKey, "Ed25519": ed25519.Ed25519PublicKey}[algorithm]
    assert isinstance(public, wanted) and (size is None or public.key_size == size), (case, public)
    alts = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names, addresses = identifiers(*case)
    assert alts.get_values_for_type(x509.DNSName) == names, case
    assert alts.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(a) for a in addresses], case
    return leaf.serial_number


def renew_all(kt, seconds):
    end = time.monotonic() + seconds
    while (result := kt.run("renew", timeout=seconds)).status != 0:
        assert time.monotonic() < end, result
        time.sleep(1)


def test_every_pair_that_can_be(tmp_path):
    with Keyturn() as kt, World(tmp_path, kt) as world:
        world.publish_for_good(CASES)
        kt.manifest("set", *(manifest(*case) for case in CASES))
        # A CA that fails at random may have one rest for a moment: that is status 75, and asked for again it goes on.
        renew_all(kt, 420)  # mostly RSA keys: 40 s on two idle cores
        serials = {check(world, case) for case in CASES}
        assert len(serials) == len(CASES)
        issued = len(world.pebble.issued()) + len(world.by_web.issued())
        assert issued == len(CASES), "one certificate each"
        assert world.pebble.accounts() == len(KINDS) - 1 and world.by_web.accounts() == 1
        assert not [p for p in world.root.rglob("*") if p.is_file()], "challenge files are removed"
        for kind in ("rfc2136", "exec"):
            for name in ("name", "wildcard"):
                own = identifiers(kind, name, "p256")[0][0].removeprefix("*.")
                assert not world.bind.txt(f"_acme-challenge.{own}"), f"a record is left at {own}"
        kt.ok("audit", "--verify")


def test_what_can_not_be(tmp_path):
    """Each is refused by name, with what would do; the CA's own refusal is shown as it is."""
    assert (len(CASES), len(CAN_NOT_BE), len(NOT_THERE)) == (75, 9, 15)
    with Keyturn() as kt, World(tmp_path, kt) as world:
        world.publish_for_good(NOT_THERE)
        kt.manifest("set", *(manifest(*case) for case in CAN_NOT_BE + NOT_THERE))
        assert kt.run("renew", timeout=240).status != 0
        for kind, name, key in CAN_NOT_BE:
            why = kt.run("why", f"{kind}-{name}-{key}").out
            wanted = r"a wildcard needs dns-01, dns-persist-01" if name == "wildcard" else r"an (IP )?address needs http-01"
            assert re.search(wanted, why), (kind, name, why)
        for kind, name, key in NOT_THERE:
            why = kt.run("why", f"{kind}-{name}-{key}").out
            assert "badCSR" in why and "Ed25519 is not supported" in why, (kind, name, why)
        for case in CAN_NOT_BE + NOT_THERE:
            assert not kt.volume("-".join(case) + "-tls").exists(), case
        assert not world.pebble.issued() and not world.by_web.issued()
