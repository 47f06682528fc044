"""Keys of private_key_jwt as credentials: shown at a URL of ours that the real oidc-provider reads, or added at a stand-in for Okta."""

import json
import threading
import time

import pytest

from lib import jose
from lib.anypoint import Platform
from lib.manifests import token
from lib.oauth import API, SCOPE
from lib.servers import OidcProvider, fetch
from lib.wait import free_port, until


def credential(where, test, **spec):
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientCredential", "metadata": {"name": "orders"}, "spec": {
        "secretName": "orders-key", "clients": [{"clientID": "a"}], "privateKey": {}, "issuer": where, "test": test, "drain": "2s", **spec}}


class Hosted:
    """A client of the real server, whose jwks_uri is a URL at our desk."""

    def __init__(self, kt, tmp, alg="ES256", **key):
        self.kt, self.port = kt, free_port()
        self.url = f"http://127.0.0.1:{self.port}/clients/orders.json"
        self.server = OidcProvider(tmp, ttl=300, jwksCache=1, clients=[{
            "client_id": "a", "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": alg,
            "jwks_uri": self.url}])
        self.key = {"algorithm": alg, **key}

    def manifest(self, *more, where=None, **spec):
        ca = self.server.oauth2("oidc", {"method": "private_key_jwt", "clientID": "a", "keySecretRef": {"name": "orders-key"}})
        self.bundle = bundle = ca["spec"]["oauth2"]["caBundle"]
        self.kt.agent_settings(listeners={"jwks": f"127.0.0.1:{self.port}"})
        self.kt.manifest("all", ca, token("pay", audiences=[API], scopes=[SCOPE]), credential(
            {"hosted": {"jwksURL": self.url, **(where or {})}}, {"tokenURL": self.server.issuer_url + "/token", "caBundle": bundle},
            privateKey=self.key, **spec), *more)

    def kids(self):
        return [k["kid"] for k in json.loads(fetch(self.url)[1])["keys"]]

    def shows(self, count):
        try:
            return len(self.kids()) == count
        except (OSError, ValueError):  # the desk is not up again
            return False

    def used(self):
        """kids of the assertions that the server took, in order."""
        return [r["assertion"]["header"]["kid"] for r in self.server.requests() if r.get("status") == 200]

    def refused(self):
        return [r for r in self.server.requests() if r.get("status", 200) != 200]

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop()


@pytest.fixture
def hosted(kt, tmp_path):
    with Hosted(kt, tmp_path, publishAhead="2s") as own:
        yield own


def in_use(kt):
    return json.loads(kt.read("orders-key", "client.jwk"))["kid"]


class Minting:
    """Asks for a new token all the time."""

    def __init__(self, kt):
        self.kt, self.count, self.bad, self.stopped = kt, 0, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.stopped.is_set():
            result = self.kt.run("renew", "pay", "--force")
            self.count += 1
            if result.status:
                self.bad.append(result)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join(30)


@pytest.mark.parametrize("alg", ["ES256", "RS256", "PS256", "EdDSA"])
def test_first_key_is_used_at_once(kt, tmp_path, alg):
    with Hosted(kt, tmp_path, alg) as hosted:
        hosted.manifest()
        running = kt.start()
        until(lambda: kt.credential("pay")["state"] == "delivered", 20, "a token")
        published = json.loads(fetch(hosted.url)[1])["keys"]
        assert len(published) == 1 and published[0]["alg"] == alg and "d" not in published[0] and "p" not in published[0]
        assert published[0]["kid"] == in_use(kt) == jose.thumbprint(published[0])
        assert set(hosted.used()) == {in_use(kt)} and len(hosted.used()) == 2, "tried, then used"
        assert (kt.volume("orders-key") / "tls.key").stat().st_mode & 0o777 == 0o600
        assert kt.read("orders-key", "client-id") == b"a" and not (kt.volume("orders-key") / "client-secret").exists()
        assert kt.credential("orders")["tokenId"] == in_use(kt)
        running.stop()


def test_rotates_under_load(kt, hosted):
    """No request is refused; a key is in the set before its first use, and after its last; then it is gone."""
    hosted.manifest(rotationInterval="7s")
    running = kt.start()
    until(lambda: kt.credential("pay")["state"] == "delivered", 20, "a token")
    seen = {}  # kid -> when it was first and last in the set
    with Minting(kt) as minting:
        end = time.time() + 40
        while time.time() < end and len(set(hosted.used())) < 3:
            now = time.time()
            for kid in hosted.kids():
                seen.setdefault(kid, [now, now])[1] = now
            time.sleep(0.1)
    assert minting.count > 5 and not minting.bad, minting.bad[:1]
    assert not hosted.refused(), hosted.refused()[:2]
    uses = {}
    for r in (r for r in hosted.server.requests() if "assertion" in r):
        uses.setdefault(r["assertion"]["header"]["kid"], []).append(r["time"])
    first, second, third = list(uses)[:3]
    for kid in (second, third):
        assert uses[kid][0] - seen[kid][0] >= 1.7, "shown for publishAhead before its first use"
    assert seen[first][1] >= uses[first][-1], "and after its last"
    until(lambda: first not in hosted.kids(), 10, "gone after drain")
    running.stop()


def test_what_was_delivered_is_known_again(kt, hosted):
    """A restart writes nothing anew; a file that somebody took away comes back."""
    hosted.manifest()
    running = kt.start()
    until(lambda: kt.credential("pay")["state"] == "delivered", 20, "a token")
    running.stop()
    folder = kt.volume("orders-key")
    before = (folder / "..data").readlink()
    result = kt.ok("renew", "orders")
    assert (folder / "..data").readlink() == before and "is not as it was delivered" not in result.err, result
    (folder / "..data" / "tls.key").unlink()
    result = kt.ok("renew", "orders")
    assert "tls.key" in result.err and kt.read("orders-key", "tls.key").startswith(b"-----BEGIN"), result


def test_a_set_that_can_not_be_written_stops_nobody_else(kt, tmp_path):
    """The old key's time is over, and the folder of the set is no folder: that is said, and everything else goes on."""
    folder = tmp_path / "set"
    with Hosted(kt, tmp_path, publishAhead="1s") as hosted:
        hosted.manifest(where={"publishJWKS": {"volume": {"path": str(folder)}}})
        running = kt.start()
        until(lambda: kt.credential("pay")["state"] == "delivered", 20, "a token")
        first = in_use(kt)
        kt.run("renew", "orders", "--force")
        until(lambda: in_use(kt) != first, 10, "the next key")
        folder.rename(tmp_path / "gone")
        folder.write_text("no folder")
        until(lambda: "can't be shown" in running.err() or "can't be written" in running.err(), 15, "the old key's end")
        kt.ok("renew", "pay", "--force")
        assert "the state can't be written" not in running.err()
        folder.unlink()
        running.stop()
        running = kt.start()
        until(lambda: hosted.shows(1) and hosted.kids() == [in_use(kt)], 10, "the old key is shown no more")
        assert len(json.loads((folder / "jwks.json").read_text())["keys"]) == 1
        running.stop()


def test_waits_for_publish_ahead(kt, tmp_path):
    with Hosted(kt, tmp_path, publishAhead="1h") as hosted:
        hosted.manifest(rotationInterval="30h")
        running = kt.start()
        until(lambda: kt.credential("pay")["state"] == "delivered", 20, "a token")
        first = in_use(kt)
        result = kt.run("renew", "orders", "--force")
        assert result.status == 0 and "1 of them: the new key is shown" in result.out, result
        assert len(hosted.kids()) == 2 and in_use(kt) == first
        assert "the new key is shown" in kt.run("why", "orders").out
        running.kill9()
        running = kt.start()
        until(lambda: hosted.shows(2), 10, "both keys are shown after a restart")
        kt.ok("renew", "pay", "--force")
        assert set(hosted.used()) == {first} and not hosted.refused()
        running.stop()


@pytest.mark.parametrize("moment", [0.0, 0.3, 2.05, 4.3])
def test_killed_at_any_moment(kt, hosted, moment):
    hosted.manifest()
    running = kt.start()
    until(lambda: kt.credential("pay")["state"] == "delivered", 20, "a token")
    first = in_use(kt)
    command = kt.background("renew", "orders", "--force")
    time.sleep(moment)
    command.process.process.kill()
    running.kill9()
    running = kt.start()
    kt.ok("renew", "pay", "--force")
    until(lambda: hosted.shows(1) or hosted.shows(2), 10, "shown after the restart")
    if in_use(kt) == first and len(hosted.kids()) == 1:  # it was killed before it was asked
        kt.run("renew", "orders", "--force")
    until(lambda: in_use(kt) != first, 20, "switched")
    kt.ok("renew", "pay", "--force")
    assert hosted.used()[-1] == in_use(kt) and not hosted.refused()
    until(lambda: hosted.kids() == [in_use(kt)], 15, "the old key is gone")
    running.stop()


# --- Okta -------------------------------------------------------------------------------------------------------------------


class Okta:
    """An application at the stand-in, and a Token that is bought with its key."""

    def __init__(self, kt, platform):
        self.kt, self.platform, self.app = kt, platform, platform.clients["a"]
        self.url = platform.url + "/oauth2/aus1/v1/token"

    def manifest(self, **spec):
        def issuer(name, url, auth, profile):
            return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "TokenIssuer", "metadata": {"name": name}, "spec": {"oauth2": {
                "tokenURL": url, "profile": profile, "audienceParam": "none", "auth": auth}}}

        self.kt.secret("admin", client_secret=self.platform.clients["admin"].secret)
        self.kt.manifest(
            "all", issuer("admin", self.platform.url + "/accounts/api/v2/oauth2/token",
                          {"method": "client_secret_post", "clientID": "admin", "clientSecretRef": {"name": "admin"}}, "Anypoint"),
            token("admin", "admin"),
            issuer("okta", self.url, {"method": "private_key_jwt", "clientID": "a", "keySecretRef": {"name": "orders-key"}}, "Okta"),
            token("pay", "okta"),
            credential({"okta": {"orgURL": self.platform.url, "tokenRef": "admin-token"}}, {"tokenURL": self.url}, **spec))

    def kids(self, status="ACTIVE"):
        return [k["kid"] for k in self.app.keys.values() if k["status"] == status]

    def all_taken(self):
        return all(good for _, _, good in self.platform.asserted)


@pytest.fixture
def okta(kt):
    with Platform("a") as platform:
        yield Okta(kt, platform)
        assert not platform.wrong, platform.wrong


def strange(kid):
    return {**jose.jwk(jose.new_key("ES256")), "kid": kid, "alg": "ES256", "use": "sig"}


@pytest.mark.parametrize("alg", ["ES256", "PS256"])
def test_okta_rotates_under_load(kt, okta, alg):
    """The new key is added and tried before it is used; the old one is deactivated and deleted; another's keys stay."""
    okta.app.keys["other"] = {**strange("other"), "id": "other", "status": "ACTIVE"}
    okta.app.keys["idle"] = {**strange("idle"), "id": "idle", "status": "INACTIVE"}
    okta.manifest(rotationInterval="6s", drain="1s", privateKey={"algorithm": alg})
    running = kt.start()
    until(lambda: kt.credential("pay")["state"] == "delivered", 20, "a token")
    with Minting(kt) as minting:
        until(lambda: len({kid for _, kid, _ in okta.platform.asserted}) >= 3, 40, "three keys were in use")
    assert minting.count > 5 and not minting.bad, minting.bad[:1]
    assert okta.all_taken()
    running.stop()
    assert any(method == "DELETE" for _, method, _ in okta.platform.seen)
    assert "other" in okta.kids() and okta.kids("INACTIVE") == ["idle"] and len(okta.app.keys) <= 4


def test_okta_lost_answer(kt, okta):
    """The key that the server has is found by its kid: no second one is added."""
    okta.manifest(drain="1s")
    kt.ok("renew")
    first, dropped = in_use(kt), []
    okta.platform.before_answer = lambda client: dropped.append(client.name) or "drop" if not dropped else None
    kt.ok("renew", "orders", "--force", timeout=60)
    assert dropped == ["a"] and okta.app.keys_made == 2 and in_use(kt) in okta.kids() and in_use(kt) != first
    assert okta.all_taken()


def test_okta_kill_between_add_and_store(kt, okta):
    okta.manifest(drain="1s")
    kt.ok("renew")
    first, killed = in_use(kt), []
    running = kt.start()

    def kill(client):
        if killed:
            return None
        killed.append(client.name)
        running.kill9()
        return "drop"

    okta.platform.before_answer = kill
    command = kt.background("renew", "orders", "--force")
    until(lambda: killed, 20, "killed")
    command.process.process.kill()
    assert len(okta.kids()) == 2
    running = kt.start()
    until(lambda: in_use(kt) != first, 20, "switched")
    kt.ok("renew", "pay", "--force")
    assert okta.app.keys_made == 2 and okta.platform.asserted[-1][1] == in_use(kt) and okta.all_taken()
    until(lambda: okta.kids() == [in_use(kt)], 20, "the old key is deleted")
    running.stop()


def test_okta_key_that_is_inactive(kt, okta):
    """Added, and deactivated by somebody before the answer came: it is activated."""
    okta.manifest(drain="1s")
    kt.ok("renew")

    def deactivate(client):
        list(client.keys.values())[-1]["status"] = "INACTIVE"
        okta.platform.before_answer = None
        return "drop"

    okta.platform.before_answer = deactivate
    kt.ok("renew", "orders", "--force", timeout=60)
    assert in_use(kt) in okta.kids() and okta.app.keys_made == 2 and okta.all_taken()


@pytest.mark.parametrize("spec, what", [
    ({"issuer": {"static": {}}}, "hosted and okta"),
    ({"issuer": {"okta": {"orgURL": "https://o.example", "tokenRef": "t"}}, "privateKey": {"algorithm": "EdDSA"}}, "EdDSA"),
    ({"issuer": {"hosted": {"jwksURL": "https://keys.example"}}}, "needs a path"),
    ({"privateKey": None}, "needs spec.privateKey"),
    ({"test": None}, "is needed with privateKey"),
    ({"privateKey": {"publishAhead": "1h"}, "rotationInterval": "1h"}, "longer than"),
])
def test_what_check_refuses(kt, spec, what):
    own = credential({"hosted": {"jwksURL": "https://keys.example/orders"}}, {"tokenURL": "https://idp.example/token"})
    own["spec"].update(spec)
    own["spec"] = {k: v for k, v in own["spec"].items() if v is not None}
    kt.manifest("all", own)
    result = kt.run("check")
    assert result.status != 0 and what in result.out + result.err, result


def test_set_in_a_folder(kt, tmp_path):
    """Where another web server shows it: the file is there before the key is tried."""
    with Hosted(kt, tmp_path) as hosted:
        hosted.manifest()
        own = credential({"hosted": {"jwksURL": hosted.url, "publishJWKS": {"listener": False, "volume": {"path": str(kt.root / "keys")}}}},
                         {"tokenURL": hosted.server.issuer_url + "/token", "caBundle": hosted.bundle})
        kt.manifest("all", own)
        result = kt.run("renew", timeout=90)  # nobody serves it: refused
        assert result.status == 75 and "as yet" in result.err, result
        published = json.loads((kt.root / "keys" / "jwks.json").read_text())["keys"]
        assert len(published) == 1 and not (kt.root / "keys" / "openid-configuration").exists()
