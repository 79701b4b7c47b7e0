"""What a node with this configuration does not do, or does at a risk, and how to change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from edge_config.address import is_loopback
from edge_config.cluster import Plain
from edge_config.schema import ANY_ORIGIN, Durability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_config.schema import Config

SECRET_BYTES: Final = 32  # RFC 7518, section 3.2: a key for HS256 has at least the size of the hash


def notices(config: Config) -> list[str]:
    """Sentences for an operator; the gravest come first."""
    return [
        *_clients(config),
        *_network(config),
        *_cluster(config),
        *_webhooks(config),
        *_rooms(config),
        *_storage(config),
    ]


def _clients(config: Config) -> Iterator[str]:
    auth = config.auth
    if auth.secret is None:
        yield (
            "Client tokens are refused: there is no secret to verify them. Set CHAT_NODE_AUTH__SECRET, or"
            " auth.secret_file in the configuration (`openssl rand -hex 32` makes a secret)."
        )
    elif (length := len(auth.secret.reveal().encode())) < SECRET_BYTES:
        yield f"auth.secret has {length} bytes, so it can be guessed: give {SECRET_BYTES} (`openssl rand -hex 32`)."
    if auth.insecure:
        yield "Guests may connect without a token (auth.insecure, which --dev turns on): not for production."
    else:
        yield "Guests are off: auth.insecure = true lets clients without a token in; --dev does so to try the node out."
    if config.api.allow_weak_keys:
        yield "API keys may be short, so they can be guessed (api.allow_weak_keys): for tests on this machine only."
    if ANY_ORIGIN in auth.allowed_origins:
        yield "Any web page may connect: list your sites in auth.allowed_origins instead of *."


def _network(config: Config) -> Iterator[str]:
    listen = config.listen
    if is_loopback(listen.host):
        yield f"Only this machine can connect: listen.host is {listen.host}; 0.0.0.0 opens the port to others."
        return
    if config.node.dev:
        yield f"--dev is on, and listen.host = {listen.host} is open to others: anybody there may do everything."
    if listen.tls_certificate is None:
        yield (
            "TLS is off: give listen.tls_certificate and listen.tls_key, or let a balancer in front of the node end it."
        )


def _cluster(config: Config) -> Iterator[str]:
    if config.cluster.listen and config.cluster.plain is Plain.ANYWHERE:
        yield (
            "Whoever reaches cluster.listen can speak for any node and change any message (cluster.plain = anywhere):"
            " make keys by `chat-node keys new` and take it out."
        )


def _rooms(config: Config) -> Iterator[str]:
    default = config.rooms.default_kind
    if default not in config.kinds:
        how = f"add [kinds.{default}]" if default else "name a kind in rooms.default_kind"
        yield f"Rooms without a kind in their name are refused: {how} to allow them."
    yield "Moderation is off: this version has none."


def _webhooks(config: Config) -> Iterator[str]:
    for name, hook in config.webhooks.items():
        if hook.url.startswith("http:") and not is_loopback(urlsplit(hook.url).hostname or ""):
            yield f"Webhook {name} is sent without TLS: whoever is on the way reads it. Give a URL of https."


def _storage(config: Config) -> Iterator[str]:
    if config.log.durability is Durability.OS:
        yield 'Acknowledged messages do not survive a power cut: log.durability is "os"; "fsync" makes them.'
