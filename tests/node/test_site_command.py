"""``chat-node site`` and ``token`` with sites, as a person uses them."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from edge_config.schema import Auth
from edge_config.secret import Secret
from node import revocations, site_file
from node.auth import Authenticator, InvalidToken, RevokedToken, make_token
from node.cli import app
from node.sites import digest_of
from node.webhook_files import Progress, TargetFiles
from node.webhook_target import TargetId

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

SECRET = "a secret of the tests, long enough for HS256"


class Shell:
    """Runs commands for one data directory, with auth.secret configured."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, status: int = 0) -> Result:
        environment = {name: "" for name in os.environ if name.startswith("CHAT_NODE")}
        result = CliRunner().invoke(
            app, [*arguments, "--data-dir", str(self.folder)], env={**environment, "CHAT_NODE_AUTH__SECRET": SECRET}
        )
        assert result.exit_code == status, result.output
        return result

    def gate(self, clock: float = 0.0) -> Authenticator:
        sites = site_file.load(self.folder, Auth(secret=Secret(SECRET)))
        return Authenticator(sites, b"g", lambda: clock or time.time(), revocations=revocations.read(self.folder))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "data")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_site_is_added_and_its_tokens_are_accepted_for_it_alone(shell: Shell, algorithm: str) -> None:
    added = shell.run(
        "site", "add", "shop", "--algorithm", algorithm, "--audience", "chat", "--origin", "https://s.example"
    )
    secret = added.stdout.strip()
    token = shell.run("token", "create", "--site", "shop", "--user", "ann").stdout.strip()
    who = shell.gate().connection(token, "")
    assert (who.site, who.user) == ("shop", "ann")
    assert shell.gate().connection(make_token(secret, {"sub": "bob", "aud": "chat"}, algorithm), "").site == "shop"
    inspected = shell.run("token", "inspect", token)
    assert "Accepted: ann may connect, to site shop." in inspected.stderr
    own = shell.run("token", "create", "--user", "eve").stdout.strip()
    assert shell.gate().connection(own, "").site == "default"


def test_the_list_shows_keys_by_their_ids_and_no_secret(shell: Shell) -> None:
    secret = shell.run("site", "add", "shop", "--guests", "--require", "exp").stdout.strip()
    api_key = shell.run("site", "add-api-key", "shop", "--scope", "publish").stdout.strip()
    for listed in (shell.run("site", "list").output, shell.run("site", "list", "--json").output):
        assert "shop-" in listed
        assert "publish" in listed
        for hidden in (secret, api_key, SECRET, digest_of(api_key)):
            assert hidden not in listed
    shop = [json.loads(line) for line in shell.run("site", "list", "--json").stdout.splitlines()][1]
    assert (shop["site"], shop["guests"], shop["required"], shop["origins"]) == ("shop", True, ["exp"], None)
    assert api_key not in (shell.folder / "sites.json").read_text()


def test_a_rotated_key_is_valid_for_its_grace_and_no_longer(shell: Shell) -> None:
    old = shell.run("site", "add", "shop").stdout.strip()
    new = shell.run("site", "rotate-key", "shop", "--grace", "1h").stdout.strip()
    later = time.time() + 3700
    assert shell.gate().connection(make_token(old, {"sub": "u"}), "").site == "shop"
    assert shell.gate(later).connection(make_token(new, {"sub": "u"}), "").site == "shop"
    with pytest.raises(InvalidToken):
        shell.gate(later).connection(make_token(old, {"sub": "u"}), "")
    made = shell.run("token", "create", "--site", "shop", "--user", "u").stdout.strip()
    assert shell.gate(later - 200).connection(made, "").site == "shop", "the newest key signs"
    shell.run("site", "rotate-key", "shop", "--grace", "0")
    with pytest.raises(InvalidToken):
        shell.gate().connection(make_token(new, {"sub": "u"}), "")


def test_a_site_with_a_public_key(shell: Shell, tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    added = shell.run("site", "add", "shop", "--algorithm", "EdDSA", "--public-key", str(tmp_path / "key.pem"))
    assert added.stdout == "", "there is no secret"
    refused = shell.run("token", "create", "--site", "shop", "--user", "u", status=1)
    assert "makes its tokens with the private key" in refused.stderr


def test_a_removed_site_is_gone_with_what_it_revoked(shell: Shell) -> None:
    secret = shell.run("site", "add", "shop").stdout.strip()
    shell.run("token", "revoke", "--site", "shop", "--jti", "t")
    shell.run("site", "remove", "shop")
    with pytest.raises(InvalidToken):
        shell.gate().connection(make_token(secret, {"sub": "u"}), "")
    assert not revocations.read(shell.folder)


def test_an_api_key_is_found_until_it_is_removed(shell: Shell) -> None:
    for site in ("default", "shop"):
        if site != "default":
            shell.run("site", "add", site)
        made = shell.run("site", "add-api-key", site, "--scope", "read", "--scope", "publish")
        found = shell.gate().sites.by_api_key(made.stdout.strip())
        assert found is not None
        assert (found[0].name, found[1].scopes) == (site, frozenset({"read", "publish"}))
        shell.run("site", "remove-api-key", site, found[1].id)
        assert shell.gate().sites.by_api_key(made.stdout.strip()) is None


def test_tokens_are_revoked_by_id_by_user_and_by_time(shell: Shell) -> None:
    now = int(time.time())
    token = make_token(SECRET, {"sub": "u", "iat": now, "jti": "t"})
    shell.run("token", "revoke", "--jti", "t", "--for", "30d")
    with pytest.raises(RevokedToken):
        shell.gate().connection(token, "")
    assert "Refused: it was revoked." in shell.run("token", "inspect", token, status=1).stderr
    other = make_token(SECRET, {"sub": "u", "iat": now})
    shell.run("token", "revoke", "--user", "u")
    with pytest.raises(RevokedToken):
        shell.gate().connection(other, "")
    third = make_token(SECRET, {"sub": "v", "iat": now - 100})
    shell.run("token", "revoke", "--before", "2020-01-01T00:00Z")
    assert shell.gate().connection(third, "").user == "v"
    shell.run("token", "revoke", "--before", "now")
    with pytest.raises(RevokedToken):
        shell.gate().connection(third, "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["site", "add", "a b"], "a site's name has"),
        (["site", "add", "a", "--algorithm", "none"], "none of HS256"),
        (["site", "add", "a", "--algorithm", "RS256"], "needs --public-key FILE"),
        (["site", "add", "a", "--public-key", "x"], "--public-key is for RS256"),
        (["site", "add", "a", "--algorithm", "RS256", "--public-key", "/nowhere"], "can't be used"),
        (["site", "add", "a", "--require", "name"], "are none of"),
        (["site", "add", "a", "--origin", "here"], "can't be understood"),
        (["site", "rotate-key", "a"], "There is no site 'a'"),
        (["site", "rotate-key", "default"], "it is configured, with auth.secret"),
        (["site", "remove", "a"], "There is no site 'a'"),
        (["site", "add-api-key", "a", "--scope", "all"], "does not exist"),
        (["site", "add-api-key", "a"], "could do nothing"),
        (["token", "create", "--site", "a"], "there are: default"),
        (["token", "revoke", "--site", "a", "--jti", "t"], "There is no site 'a'"),
        (["token", "revoke"], "Give one of --jti, --user and --before"),
        (["token", "revoke", "--jti", "t", "--user", "u"], "Give one of"),
        (["token", "revoke", "--before", "soon"], "is no time"),
    ],
)
def test_what_can_not_be_done_says_why_and_changes_nothing(shell: Shell, arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(
        app, [*arguments, "--data-dir", str(shell.folder)], env={"CHAT_NODE_AUTH__SECRET": SECRET}
    )
    assert result.exit_code in {1, 2}
    assert complaint in result.output
    assert not (shell.folder / "sites.json").exists()
    assert not (shell.folder / "revocations.json").exists()


def test_a_name_is_given_once(shell: Shell) -> None:
    shell.run("site", "add", "a")
    assert "There is a site 'a' already" in shell.run("site", "add", "a", status=1).stderr


def hooks(shell: Shell) -> list[site_file.WebhookEntry]:
    return [hook for site in site_file.read(shell.folder).sites for hook in site.webhooks]


def test_a_webhook_is_made_rotated_and_removed(shell: Shell) -> None:
    shell.run("site", "add", "shop")
    made = shell.run("site", "add-webhook", "shop", "https://shop.example/hook", "--name", "crm", "--event", "message")
    (hook,) = hooks(shell)
    assert (hook.id, hook.url, hook.events, hook.allow_private) == (
        "crm", "https://shop.example/hook", ["message"], False
    )  # fmt: skip
    assert made.stdout.strip() == hook.secret
    assert len(hook.secret) == 64
    assert "webhook test shop/crm" in made.output

    fresh = shell.run("site", "rotate-webhook-secret", "shop", "crm", "--grace", "1h").stdout.strip()
    (rotated,) = hooks(shell)
    assert (rotated.secret, [old.secret for old in rotated.old_secrets]) == (fresh, [hook.secret])
    assert 3590 < rotated.old_secrets[0].until - time.time() <= 3600
    shell.run("site", "rotate-webhook-secret", "shop", "crm", "--grace", "0")
    assert hooks(shell)[0].old_secrets == []

    shell.run("site", "add-webhook", "shop", "http://10.0.0.1/", "--allow-private")
    assert hooks(shell)[1].id != "crm"
    shell.run("site", "remove-webhook", "shop", "crm")
    assert [hook.url for hook in hooks(shell)] == ["http://10.0.0.1/"]


def test_a_webhook_of_the_default_site_needs_no_entry_before(shell: Shell) -> None:
    shell.run("site", "add-webhook", "default", "https://shop.example/", "--name", "crm")
    listed = json.loads(shell.run("webhook", "list", "--json").stdout)
    assert (listed["webhook"], listed["state"], len(listed["events"])) == ("default/crm", "not begun", 9)


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (("add-webhook", "nope", "https://a.example/"), 1, "no site 'nope'"),
        (("add-webhook", "default", "http://a.example/"), 1, "'http://a.example/': anybody on the way could read"),
        (("add-webhook", "default", "ftp://a.example/"), 1, "not of https"),
        (("add-webhook", "default", "https://u:p@a.example/"), 1, "user or password"),
        (("add-webhook", "default", "https://a.example/#x"), 1, "fragment"),
        (("add-webhook", "default", "https://[x/"), 1, "no URL"),
        (("add-webhook", "default", "/hook"), 1, "no URL with a host"),
        (("add-webhook", "default", "https://a.example/", "--name", "a b"), 1, "webhook id 'a b' has not"),
        (
            ("add-webhook", "default", "https://a.example/", "--event", "massage"),
            2,
            "massage does not exist. Give message",
        ),
        (("rotate-webhook-secret", "default", "x"), 1, "no site 'default' in the file"),
        (("remove-webhook", "default", "x"), 1, "no site 'default' in the file"),
    ],
)
def test_a_webhook_that_can_not_be_is_refused_with_what_is_wrong(
    shell: Shell, words: tuple[str, ...], status: int, complaint: str
) -> None:
    result = shell.run("site", *words, status=status)
    assert complaint in " ".join(result.output.split())
    assert hooks(shell) == []


def test_two_webhooks_of_one_name_are_refused(shell: Shell) -> None:
    shell.run("site", "add-webhook", "default", "https://a.example/", "--name", "crm")
    result = shell.run("site", "add-webhook", "default", "https://b.example/", "--name", "crm", status=1)
    assert "has a webhook 'crm' already" in result.output


def test_what_is_kept_of_webhooks_goes_with_them_and_with_their_site(shell: Shell) -> None:
    shell.run("site", "add", "shop")
    for name in ("crm", "erp"):
        shell.run("site", "add-webhook", "shop", "https://shop.example/", "--name", name)
        TargetFiles(shell.folder, TargetId("shop", name)).begin(Progress(birth="b", cursor={}))
    left = shell.folder / "webhooks" / "shop"
    shell.run("site", "remove-webhook", "shop", "crm")
    assert [path.name for path in left.iterdir()] == ["erp.json"]
    shell.run("site", "remove", "shop")
    assert list(left.iterdir()) == []
