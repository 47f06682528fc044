"""status for monitoring: --fail-within measures what lives short by its own life, names what it means, and -q is silent."""

import time

from lib.manifests import certificate, token

SELF = "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: self}\nspec: {selfSigned: {}}\n"
LOCAL = ("apiVersion: keyturn.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {name: oidc}\n"
         "spec: {local: {issuerURL: 'https://tokens.example'}}\n")


def test_short_lives_are_in_order_until_they_are_late(kt):
    kt.manifest("all", SELF, LOCAL, certificate("web", "self", duration="24h", renewBefore="8h"),
                token("short", audiences=["a"], maxLifetime="12s", renewBefore="8s"))
    kt.ok("renew")
    for _ in range(2):  # in force, and after its renewal point but not late yet
        quiet = kt.ok("status", "--fail-within", "24h", "-q")
        assert quiet.out == "" and quiet.err == "", quiet
        time.sleep(4.5)
    row = kt.credential("short")
    assert row["renewAt"] < row["alarmAt"] < row["notAfter"], row
    time.sleep(5.5)
    loud = kt.run("status", "--fail-within", "24h")
    assert loud.status == 1 and "Token/default/short: ends " in loud.err and "web" not in loud.err, loud
    assert "short" in loud.out
    for args in (("status", "--fail-within", "24h", "-q"), ("status", "short", "--fail-within", "24h", "-q"),
                 ("status", "-q", "-o", "json", "--fail-within", "24h")):
        quiet = kt.run(*args)
        assert quiet.status == 1 and quiet.out == "" and quiet.err == "", quiet
    one = kt.run("status", "short", "--fail-within", "24h")
    assert one.status == 1 and "Token/default/short" in one.err, one
    kt.ok("status", "web", "--fail-within", "1h")
    told = kt.run("status", "-o", "json", "--fail-within", "24h")
    summary = told.json()["summary"]
    assert summary["expiring"] == 1 and summary["endsSoon"][0]["name"] == "short", summary
    kt.ok("renew")
    kt.ok("status", "--fail-within", "24h", "-q")


def test_one_that_never_came_counts(kt):
    kt.manifest("all", certificate("web", "ca", names=["web.example"]),
                "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: ca}\nspec: {ca: {secretName: nowhere}}\n")
    kt.run("renew")
    result = kt.run("status", "--fail-within", "1h")
    assert result.status == 1 and "Certificate/default/web: there is none in force" in result.err, result


def test_what_is_never_due_has_no_time(kt):
    kt.secret("given", client_secret="one")
    kt.manifest("all", "apiVersion: keyturn.dev/v1alpha1\nkind: ClientCredential\nmetadata: {name: stat}\n"
                       "spec: {secretName: stat, issuer: {static: {}}, clients: [{clientID: abc, secretRef: {name: given}}]}\n")
    kt.ok("renew")
    row = kt.credential("stat")
    assert row["due"] is None and row["renewAt"] is None and row["alarmAt"] is None, row
    cells = [line.split() for line in kt.ok("status").out.splitlines() if line.startswith("stat")][0]
    assert cells[3:5] == ["-", "-"], cells
    assert "9999" not in kt.ok("status", "stat").out
