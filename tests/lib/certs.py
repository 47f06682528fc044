"""Certificates for tests: small CAs, what a server serves, and whether a delivered set is good."""

import base64
import datetime
import ipaddress
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def pem(cert):
    return cert.public_bytes(serialization.Encoding.PEM)


def key_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def b64(data):
    return base64.b64encode(data).decode()


def alternatives(names):
    """The extension for names; those that are addresses go in as such."""
    alts = []
    for name in names:
        try:
            alts.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alts.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(alts)


class Authority:
    """A root of our own, for the servers' TLS and as a CA that keyturn holds."""

    def __init__(self, name="tests"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} root")])
        now = datetime.datetime.utcnow()
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.cert = (x509.CertificateBuilder().subject_name(self.name).issuer_name(self.name).public_key(self.key.public_key())
                     .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                     .not_valid_after(now + datetime.timedelta(days=2))
                     .add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
                     .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
                     .sign(self.key, hashes.SHA256()))

    def pem(self):
        return pem(self.cert)

    def bundle(self):
        """For caBundle."""
        return b64(self.pem())

    def issue(self, *names, days=1, client=False):
        """(certificate, key) for names and addresses, of a server or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.utcnow()
        cert = (x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self.name).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(days=days))
                .add_extension(alternatives(names), True)
                .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH if client else
                                                      x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
                .sign(self.key, hashes.SHA256()))
        return cert, key

    def sub(self, name):
        """(certificate, key) of a CA below it, which signs leaves only."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.utcnow()
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        cert = (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .issuer_name(self.name).public_key(key.public_key()).serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=2))
                .add_extension(x509.BasicConstraints(True, 0), True).add_extension(usage, True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
                .sign(self.key, hashes.SHA256()))
        return cert, key

    def write(self, folder, *names):
        """Writes server.crt, server.key and ca.crt for a server; returns their paths."""
        folder = Path(folder)
        cert, key = self.issue(*names)
        paths = folder / "server.crt", folder / "server.key", folder / "ca.crt"
        for path, data in zip(paths, (pem(cert), key_pem(key), self.pem())):
            path.write_bytes(data)
            path.chmod(0o644)
        return paths


def load(data):
    """The certificates of a PEM file, leaf first."""
    end = b"-----END CERTIFICATE-----"
    return [x509.load_pem_x509_certificate(part + end) for part in data.split(end)[:-1]]


def served(port, name="localhost", timeout=5):
    """The certificate that a TLS server on loopback serves; None when it serves none."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as raw:
            with context.wrap_socket(raw, server_hostname=name) as tls:
                return x509.load_der_x509_certificate(tls.getpeercert(True))
    except OSError:
        return None


def check_set(folder, names, roots):
    """A delivered set is whole: key and certificate belong together, the names are ours, the chain leads to a root."""
    folder = Path(folder)
    crt, key = (folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()
    chain = load(crt)
    leaf = chain[0]
    private = serialization.load_pem_private_key(key, None)
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert private.public_key().public_bytes(*spki) == leaf.public_key().public_bytes(*spki), "key and certificate differ"
    alts = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(alts.get_values_for_type(x509.DNSName)) == sorted(names)
    now = datetime.datetime.utcnow()
    assert leaf.not_valid_before <= now < leaf.not_valid_after
    with tempfile.TemporaryDirectory() as tmp:
        root, rest, own = Path(tmp, "root"), Path(tmp, "rest"), Path(tmp, "leaf")
        root.write_bytes(roots)
        rest.write_bytes(b"".join(pem(c) for c in chain[1:]))
        own.write_bytes(pem(leaf))
        argv = ["openssl", "verify", "-CAfile", root, "-partial_chain", *(["-untrusted", rest] if chain[1:] else []), own]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stdout + done.stderr
    return leaf
