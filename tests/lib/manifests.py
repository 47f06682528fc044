"""Manifests as dicts, in few words."""


def certificate(name, issuer, names=None, secret=None, kind="Issuer", **spec):
    return {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": name}, "spec": {
        "secretName": secret or f"{name}-tls", "dnsNames": names or [f"{name}.example"], "issuerRef": {"name": issuer, "kind": kind},
        "privateKey": {"algorithm": "ECDSA", "size": 256}, "usages": ["digital signature", "server auth"], **spec}}


def ca_issuer(name="ca", secret=None):
    return {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name},
            "spec": {"ca": {"secretName": secret or f"{name}-root"}}}


def token(name, issuer="oidc", secret=None, **spec):
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "Token", "metadata": {"name": name}, "spec": {
        "secretName": secret or f"{name}-token", "issuerRef": {"name": issuer, "kind": "TokenIssuer"}, **spec}}


def consumer(name, **spec):
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "Consumer", "metadata": {"name": name}, "spec": spec}


def projected(path, *sources, **more):
    """A volume: sources are (secret, {key: path})."""
    return {"path": str(path), **more, "sources": [
        {"secret": {"name": name, **({"items": [{"key": k, "path": p} for k, p in items.items()]} if items else {})}}
        for name, items in sources]}
