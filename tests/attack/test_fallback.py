"""A fallback issuer that lies about its root: consumers never get what they would not trust."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from acme_server import Acme, names_of
from hostile import Answer
from lib.agent import Keyturn
from lib.certs import Authority, pem
from lib.manifests import certificate
from lib.wait import free_port


def forged(csr, known):
    """Says that `known` issued it, with its name and key id; signed by somebody else."""
    now = datetime.datetime.utcnow()
    hour = datetime.timedelta(hours=1)
    return (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")]))
            .issuer_name(known.name).public_key(csr.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - hour).not_valid_after(now + 24 * hour).add_extension(names_of(csr), False)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(known.key.public_key()), False)
            .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))


def issuer(name, acme, authority, **annotations):
    return {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name, "annotations": annotations}, "spec": {
        "acme": {"server": f"{acme.url}/directory", "caBundle": authority.bundle(), "privateKeySecretRef": {"name": f"{name}-key"},
                 "solvers": [{"http01": {"ingress": {}}}]}}}


@pytest.mark.parametrize("lie", ["forged", "own root", "own leaf and the known root"])
def test_the_fallback_lies(lie):
    authority = Authority("server")
    with Keyturn() as kt, Acme(authority) as first, Acme(authority) as second:
        kt.agent_settings(listeners={"http01": f"127.0.0.1:{free_port()}"})
        if lie == "forged":
            second.leaf = lambda csr, acme: pem(forged(csr, first.issuer)) + first.issuer.pem()
        elif lie == "own leaf and the known root":
            from acme_server import build
            second.leaf = lambda csr, acme: pem(build(csr, acme)) + acme.issuer.pem() + first.issuer.pem()
        kt.manifest("set", issuer("first", first, authority, **{"keyturn.dev/fallback-issuers": "second"}),
                    issuer("second", second, authority), certificate("web", "first", ["a.example"]))
        kt.ok("renew", timeout=60)
        before = kt.read("web-tls", "tls.crt")
        first.twist["directory"] = lambda *_: Answer(503, "", "text/plain")
        for _ in range(4):
            kt.run("renew", "--force", "web", timeout=60)
        assert second.finalized >= 1, "the fallback was asked"
        assert kt.read("web-tls", "tls.crt") == before
        assert kt.credential("web")["issuedBy"] == "Issuer/default/first"
        assert any("is refused" in (r.get("reason") or "") for r in kt.audit())
