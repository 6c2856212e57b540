"""fumibako.toml: every key checked, every complaint names file, key, value and what is allowed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fumibako.config import SECTIONS, ConfigError, config_template, load_config, parse_config

HERE = Path("/srv/mail")


def test_the_template_is_a_complete_configuration() -> None:
    config = parse_config(config_template("Mail.Example.JP"), HERE)

    assert config.server.hostname == "mail.example.jp"
    assert config.server.workers == "auto"
    assert config.listen["smtp"] == ("0.0.0.0:25",)
    assert "managesieve" not in config.listen and "lmtp" not in config.listen
    assert config.tls.certificate == HERE / "tls/cert.pem"
    assert not config.allow_plaintext


def test_the_template_names_every_key_on_a_line_of_its_own() -> None:
    lines = config_template("mail.example.jp").split("\n")

    for keys in SECTIONS.values():
        for name in keys:
            assert sum(line.removeprefix("# ").startswith(f"{name} = ") for line in lines) >= 1, name


def test_every_default_is_allowed() -> None:
    for section, keys in SECTIONS.items():
        for name, key in keys.items():
            key.check(tomllib.loads(f"x = {key.default}")["x"]), (section, name)
            assert key.comment and key.allowed


def test_an_empty_file_switches_every_listener_off() -> None:
    config = parse_config("", HERE)

    assert config.listen == {}
    assert config.relay.mx_port == 25


def test_unix_paths_are_relative_to_the_data_directory() -> None:
    config = parse_config('[listen]\nlmtp = ["unix:lmtp.sock", "127.0.0.1:24"]', HERE)

    assert config.listen["lmtp"] == ("unix:/srv/mail/lmtp.sock", "127.0.0.1:24")


@pytest.mark.parametrize(("text", "says"), [
    ('[server]\nhostnme = "x.jp"', ['f.toml', "[server] hostnme", '"hostname"']),
    ("[listn]\n", ["[listn]", '"listen"']),
    ("[server]\nworkers = -1", ["workers = -1", "0 to 256"]),
    ("[server]\nworkers = true", ["workers = true", "0 to 256"]),
    ('[server]\nhostname = "mail_1.jp"', ['hostname = "mail_1.jp"', "host name"]),
    ('[server]\nloop = "trio"', ['loop = "trio"', "uvloop"]),
    ('[listen]\nsmtp = "0.0.0.0:25"', ["smtp", "a list of"]),
    ('[listen]\nsmtp = [":0"]', ["smtp", "host:port"]),
    ('[listen]\nsmtp = [":65536"]', ["smtp", "host:port"]),
    ('[listen]\nsmtp = ["unix:"]', ["smtp", "unix:path"]),
    ('[listen]\nhttps = [":443"]', ["[listen] https", "not built yet"]),
    ("[tls]\nacme = true", ["[tls] acme", "not built yet"]),
    ("[relay]\nmx_port = 0", ["mx_port = 0", "1 to 65535"]),
    ('[relay]\nsmarthost = "mail"', ["smarthost", "host:port"]),
    ('[login]\nallow_plaintext = "yes"', ['allow_plaintext = "yes"', "true or false"]),
    ('server = "x"', ["[server]"]),
    ("[server", ["not valid TOML"]),
])
def test_a_complaint_is_one_line_that_names_the_place(text: str, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, HERE, "f.toml")

    complaint = str(caught.value)
    assert "\n" not in complaint
    assert complaint.startswith("f.toml: ")
    for part in says:
        assert part in complaint


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fumibako init"):
        load_config(tmp_path)
