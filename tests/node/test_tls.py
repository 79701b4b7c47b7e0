"""Certificates: faults by a table, and which one clients are shown."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from node.faults import NodeFault
from node.tls import Certificates
from tests.harness.certificates import Identity, make_identity

Break = Callable[[Identity], object]


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return make_identity(tmp_path, "first")


def copy(source: Identity, target: Identity) -> None:
    target.certificate.write_bytes(source.certificate.read_bytes())
    target.key.write_bytes(source.key.read_bytes())


def swap(files: Identity) -> None:
    certificate, key = files.certificate.read_bytes(), files.key.read_bytes()
    files.certificate.write_bytes(key)
    files.key.write_bytes(certificate)


def replace_key(files: Identity) -> None:
    files.key.write_bytes(make_identity(files.key.parent, "other").key.read_bytes())


def encrypt_key(files: Identity) -> None:
    copy(make_identity(files.key.parent, "other", password=b"secret"), files)


def turn_into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FAULTS = [
    pytest.param(lambda files: files.certificate.unlink(), "tls_certificate.*No such file", id="no certificate"),
    pytest.param(lambda files: files.key.unlink(), "tls_key.*No such file", id="no key"),
    pytest.param(lambda files: turn_into_folder(files.key), "tls_key.*Is a directory", id="key is a folder"),
    pytest.param(lambda files: files.certificate.write_bytes(b""), "damaged, or not PEM", id="empty certificate"),
    pytest.param(lambda files: files.certificate.write_bytes(b"\xff\0"), "damaged, or not PEM", id="no PEM"),
    pytest.param(lambda files: files.key.write_text("key"), "damaged, or not PEM", id="bad key"),
    pytest.param(
        lambda files: files.key.write_bytes(files.key.read_bytes()[:100]), "damaged, or not PEM", id="half a key"
    ),
    pytest.param(swap, "damaged, or not PEM", id="swapped"),
    pytest.param(replace_key, "the key is another certificate's", id="key of another"),
    pytest.param(encrypt_key, "is encrypted", id="encrypted key"),
]


def shown(context: ssl.SSLContext, client: ssl.SSLContext | None = None) -> str:
    """The common name of the certificate that a client is shown."""
    client = client or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), context.wrap_bio(to_server, to_client, server_side=True))
    done: set[int] = set()
    while len(done) < len(ends):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            done.add(number)
    certificate = x509.load_der_x509_certificate(ends[0].getpeercert(binary_form=True) or b"")
    (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(name.value)


@pytest.mark.parametrize(("fail", "words"), FAULTS)
def test_what_can_not_be_used_is_told_with_its_file(identity: Identity, fail: Break, words: str) -> None:
    fail(identity)
    with pytest.raises(NodeFault, match=words) as raised:
        Certificates(*identity)
    assert str(identity.key) in str(raised.value) or str(identity.certificate) in str(raised.value)
    assert "listen.tls_" in str(raised.value)


@pytest.mark.parametrize(("fail", "words"), FAULTS)
def test_a_broken_file_leaves_the_old_certificate_in_use(identity: Identity, fail: Break, words: str) -> None:
    certificates = Certificates(*identity)
    fail(identity)
    with pytest.raises(NodeFault, match=words):
        certificates.reload()
    assert shown(certificates.context) == "first"


def test_after_a_reload_clients_are_shown_the_new_certificate(identity: Identity, tmp_path: Path) -> None:
    certificates = Certificates(*identity)
    before = certificates.context
    copy(make_identity(tmp_path, "second"), identity)
    assert shown(certificates.context) == "first"
    certificates.reload()
    assert shown(certificates.context) == "second"
    assert shown(before) == "first"


def test_a_file_that_was_mended_is_used_at_the_next_reload(identity: Identity, tmp_path: Path) -> None:
    certificates = Certificates(*identity)
    identity.key.write_text("key")
    with pytest.raises(NodeFault):
        certificates.reload()
    copy(make_identity(tmp_path, "second"), identity)
    certificates.reload()
    assert shown(certificates.context) == "second"


def test_http_2_is_not_agreed_upon(identity: Identity) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.set_alpn_protocols(["h2"])
    assert shown(Certificates(*identity).context, client) == "first"


def test_tls_1_1_is_refused(identity: Identity) -> None:
    context = Certificates(*identity).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
