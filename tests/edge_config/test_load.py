"""Values come from flags, environment, file or default, in this order."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_config.faults import ConfigError
from edge_config.kinds import JoinLeave, Presence, RoomKind, Schema, Who
from edge_config.load import load
from edge_config.schema import Config, Durability
from edge_config.secret import Secret

NOTHING: Mapping[str, object] = {}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "chat-node.toml"


def from_environment(**variables: str) -> Config:
    return load(None, {f"CHAT_NODE_{name}": value for name, value in variables.items()}, NOTHING)


def test_without_anything_given_all_is_at_its_default() -> None:
    assert load(None, {}, {}) == Config()


def test_an_empty_file_changes_nothing(file: Path) -> None:
    file.write_text("")
    assert load(file, {}, {}) == Config()


def test_each_type_is_read_from_a_file(file: Path) -> None:
    file.write_text(
        """
        node.dev = true
        listen = {port = 8443, tls_certificate = "tls/chain.pem", tls_key = "/etc/tls/key.pem"}
        [auth]
        secret = "s3cret"
        allowed_origins = ["https://a.example", "https://b.example:8443"]
        [log]
        commit_window_ms = 3
        durability = "os"
        [kinds.support]
        schema = "any"
        """
    )
    config = load(file, {}, {})
    assert config.node.dev is True
    assert config.listen.port == 8443
    assert config.listen.tls_certificate == file.parent / "tls/chain.pem"
    assert config.listen.tls_key == Path("/etc/tls/key.pem")
    assert config.auth.secret == Secret("s3cret")
    assert config.auth.allowed_origins == ("https://a.example", "https://b.example:8443")
    assert config.log.commit_window_ms == 3.0
    assert isinstance(config.log.commit_window_ms, float)
    assert config.log.durability is Durability.OS
    assert config.kinds["support"].schema is Schema.ANY


def test_each_type_is_read_from_the_environment() -> None:
    config = from_environment(
        AUTH__INSECURE="yes",
        LISTEN__PORT=" 8443",
        LISTEN__TLS_CERTIFICATE="chain.pem",
        LISTEN__TLS_KEY="key.pem",
        AUTH__SECRET="s3cret",
        AUTH__ALLOWED_ORIGINS="https://a.example, https://b.example,",
        LOG__COMMIT_WINDOW_MS="2.5",
        LOG__DURABILITY="os",
        KINDS__SUPPORT__SCHEMA="any",
        NODE__REGION="7",
    )
    assert config.auth.insecure is True
    assert config.listen.port == 8443
    assert config.listen.tls_certificate == Path("chain.pem")
    assert config.auth.secret == Secret("s3cret")
    assert config.auth.allowed_origins == ("https://a.example", "https://b.example")
    assert config.log.commit_window_ms == 2.5
    assert config.log.durability is Durability.OS
    assert config.kinds["support"].schema is Schema.ANY
    assert config.node.region == "7"


@pytest.mark.parametrize(
    ("word", "truth"), [("true", True), ("On", True), ("1", True), ("no", False), ("FALSE", False)]
)
def test_truth_in_the_environment_has_some_words(word: str, truth: bool) -> None:
    assert from_environment(AUTH__PERSONAL_CHANNEL=word).auth.personal_channel is truth


def test_the_environment_wins_over_the_file_and_a_flag_over_both(file: Path) -> None:
    file.write_text("[listen]\nport = 1\nbacklog = 2\n[node]\nregion = 'eu'\n[keepalive]\nping_seconds = 30")
    config = load(file, {"CHAT_NODE_LISTEN__PORT": "3", "CHAT_NODE_LISTEN__BACKLOG": "4"}, {"listen.port": 5})
    assert (config.listen.port, config.listen.backlog, config.node.region) == (5, 4, "eu")
    assert config.sources["listen.port"] == "--port"
    assert config.sources["listen.backlog"] == "CHAT_NODE_LISTEN__BACKLOG"
    assert config.sources["node.region"] == f"{file}:5"
    assert config.sources["listen.host"] == "default"


def test_a_flag_that_was_not_given_does_not_count() -> None:
    assert load(None, {"CHAT_NODE_LISTEN__PORT": "3"}, {"listen.port": None}).listen.port == 3


def test_a_value_that_a_later_layer_replaces_is_not_judged(file: Path) -> None:
    file.write_text("[listen]\nport = 'eighty'")
    assert load(file, {}, {"listen.port": 80}).listen.port == 80


def test_the_environment_may_name_the_file(file: Path) -> None:
    file.write_text("[listen]\nport = 1")
    assert load(None, {"CHAT_NODE_CONFIG": str(file)}, {}).listen.port == 1


def test_a_given_path_wins_over_the_one_in_the_environment(file: Path) -> None:
    file.write_text("[listen]\nport = 1")
    assert load(file, {"CHAT_NODE_CONFIG": "/nowhere"}, {}).listen.port == 1


def test_variables_of_others_do_not_count() -> None:
    assert load(None, {"CHAT_NODES__X": "1", "chat_node_x": "1", "PORT": "1"}, {}) == Config()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT_WEB", "8000"),
        ("PORT", "tcp://10.0.0.1:8000"),
        ("PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("METRICS_PORT_9000_TCP", "tcp://10.0.0.1:9000"),
    ],
)
def test_variables_that_kubernetes_gives_for_a_service_of_our_name_do_not_count(name: str, value: str) -> None:
    assert from_environment(**{name: value}) == Config()


def test_an_empty_text_stands_for_an_absent_value() -> None:
    config = from_environment(NODE__DATA_DIR="", LISTEN__TLS_KEY="", AUTH__SECRET="", AUTH__SECRET_FILE="")
    assert config == Config()


def test_a_data_directory_in_a_file_is_relative_to_the_file(file: Path) -> None:
    file.write_text("[node]\ndata_dir = 'data'")
    assert load(file, {}, {}).node.data_dir == file.parent / "data"


def test_a_data_directory_of_a_flag_is_relative_to_the_working_directory() -> None:
    assert load(None, {}, {"node.data_dir": Path("data")}).node.data_dir == Path("data")


# Secrets


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path, file: Path, ending: str) -> None:
    (tmp_path / "key").write_bytes(b" s3cret " + ending.encode())
    file.write_text("[auth]\nsecret_file = 'key'")
    config = load(file, {}, {})
    assert config.auth.secret == Secret(" s3cret ")
    assert config.sources["auth.secret"] == f"{file}:2 (secret_file)"


def test_a_secret_of_a_later_layer_wins_in_whichever_way_it_is_given(tmp_path: Path, file: Path) -> None:
    (tmp_path / "key").write_text("from its file")
    file.write_text("[auth]\nsecret = 'from the configuration'")
    config = load(file, {"CHAT_NODE_AUTH__SECRET_FILE": str(tmp_path / "key")}, {})
    assert config.auth.secret == Secret("from its file")


def test_an_unset_variable_of_a_secret_leaves_the_file_its_say(file: Path) -> None:
    file.write_text("[auth]\nsecret = 's3cret'")
    assert load(file, {"CHAT_NODE_AUTH__SECRET": ""}, {}).auth.secret == Secret("s3cret")


def test_a_secret_given_in_two_ways_at_once_is_a_fault(file: Path) -> None:
    file.write_text("[auth]\nsecret = 's3cret'\nsecret_file = 'key'")
    with pytest.raises(ConfigError) as caught:
        load(file, {}, {})
    assert caught.value.faults[0].problem == f"given twice: {file}:2 gives auth.secret"


# Dev


def test_dev_changes_defaults() -> None:
    config = load(None, {}, {"node.dev": True})
    assert config.auth.insecure is True
    assert config.limits.connections_per_ip == 0
    assert config.rates.connection_publishes == 0
    assert config.kinds["default"] == RoomKind(
        publish=Who.ANYONE,
        read_history=Who.ANYONE,
        read_presence=Who.ANYONE,
        presence=Presence.ROSTER,
        join_leave=JoinLeave.ON,
    )
    assert config.sources["auth.insecure"] == "default with --dev"
    assert config.sources["listen.port"] == "default"


def test_what_is_given_wins_over_dev(file: Path) -> None:
    file.write_text("[node]\ndev = true\n[auth]\ninsecure = false\n[kinds.default]\npublish = 'nobody'")
    config = load(file, {"CHAT_NODE_LIMITS__CONNECTIONS_PER_IP": "7"}, {})
    assert config.auth.insecure is False
    assert config.limits.connections_per_ip == 7
    assert config.kinds["default"].publish is Who.NOBODY
    assert config.kinds["default"].join_leave is JoinLeave.ON


def test_a_flag_turns_dev_of_the_file_off(file: Path) -> None:
    file.write_text("[node]\ndev = true")
    assert load(file, {}, {"node.dev": False}).auth.insecure is False


# Kinds


def test_a_kind_may_have_no_key_at_all(file: Path) -> None:
    file.write_text("[kinds.support]\n[kinds.default]")
    assert load(file, {}, {}).kinds == {"support": RoomKind(name="support"), "default": RoomKind()}


def test_only_configured_kinds_exist_once_one_is(file: Path) -> None:
    file.write_text("[kinds.support]")
    assert list(load(file, {}, {}).kinds) == ["support"]


def test_an_empty_table_of_kinds_leaves_the_default_kind(file: Path) -> None:
    file.write_text("[kinds]")
    assert load(file, {}, {}).kinds == Config().kinds


def test_a_variable_names_a_kind_of_the_file_whatever_its_case(file: Path) -> None:
    file.write_text("[kinds.Support-Desk]\nschema = 'any'")
    config = load(file, {"CHAT_NODE_KINDS__SUPPORT_DESK__SUBSCRIBE": "user"}, {})
    assert config.kinds == {"Support-Desk": RoomKind(name="Support-Desk", schema=Schema.ANY, subscribe=Who.USER)}


def test_a_variable_makes_a_kind_in_lower_case() -> None:
    assert list(from_environment(KINDS__SUPPORT__SCHEMA="any").kinds) == ["support"]


def test_the_kinds_can_not_be_changed_afterwards() -> None:
    with pytest.raises(TypeError):
        load(None, {}, {}).kinds["other"] = RoomKind()  # type: ignore[index]
