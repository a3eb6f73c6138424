"""Settings: read in one place, refused by name, documented from the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.commands.settings import settings_page
from modelyard.settings import SETTINGS, SettingsError, kept_secret, load_settings

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"

WRONG = [
    ({"MODELYARD_PORT": "eighty"}, "MODELYARD_PORT is 'eighty' but must be a whole number"),
    ({"MODELYARD_PORT": "65536"}, "from 0 to 65535"),
    ({"MODELYARD_GPUS": "a,b"}, "MODELYARD_GPUS is 'a,b' but must be GPU numbers"),
    ({"MODELYARD_UPLOAD_SIZE": "12 parsecs"}, "like 500 MB"),
    ({"MODELYARD_UPLOAD_SIZE": "0 GB"}, "like 500 MB"),
    ({"MODELYARD_UPLOAD_RATIO": "nan"}, "a number from 1 to 10000"),
    ({"MODELYARD_REGISTRATION": "maybe"}, "one of open, closed"),
    ({"MODELYARD_CANCEL_GRACE_SECONDS": "nan"}, "MODELYARD_CANCEL_GRACE_SECONDS"),
    ({"TRAINING_EXECUTION_MODE": "magic"}, "one of celery, subprocess, api"),
    ({"REDIS_URL": "http://broker"}, "redis:// or rediss://"),
    ({"REDIS_URL": "redis://broker:port/0"}, "REDIS_URL must be a URL whose host and port can be"),
    ({"REDIS_URL": "redis://:p/w@broker:6379/0"}, "in a password, write '/'"),
    ({"DATABASE_URL": "postgresql://me:a[b@db/x"}, "DATABASE_URL must be a URL whose host and"),
    ({"DATABASE_URL": "mysql://db"}, "sqlite:// or postgresql://"),
    ({"MODELYARD_SECRET_KEY": "short"}, "at least 32 bytes"),
    ({"MODELYARD_STORE": "nonsense"}, "must be a URL without credentials, like s3://bucket/prefix"),
    ({"MODELYARD_WORKER_NAME": "gpu box"}, "without spaces"),
    ({"MODELYARD_HOME": str(Path(__file__))}, "is a file"),
    ({"MODELYARD_PROT": "1"}, "MODELYARD_PROT is not a setting of Modelyard; did you mean"),
]


@pytest.mark.parametrize(("environ", "says"), WRONG)
def test_a_wrong_setting_is_refused_with_its_name_and_what_would_be_right(
    environ: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings(environ)
    assert says in str(refusal.value)
    assert next(iter(environ)) in str(refusal.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", "hunter2"),
        ("DATABASE_URL", "hunter2"),
        ("MODELYARD_SECRET_KEY", "hunter2"),
        ("MODELYARD_STORE", "s3://key:hunter2@bucket/prefix"),
        ("MODELYARD_STORE", "s3://bucket/prefix?secret=hunter2"),
    ],
)
def test_a_refusal_never_repeats_a_secret(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load_settings({variable: value})
    assert "hunter2" not in str(refusal.value)


def test_everything_lies_in_the_home_folder_unless_told_otherwise(tmp_path: Path) -> None:
    settings = load_settings({"MODELYARD_HOME": str(tmp_path)})
    assert settings.database_url == f"sqlite:///{tmp_path}/modelyard.db"
    assert settings.data_roots == (tmp_path / "data",)
    assert settings.uploads == tmp_path / "uploads"
    assert settings.dataset_roots == (tmp_path / "data", tmp_path / "uploads")
    assert settings.outputs == tmp_path / "outputs"
    assert settings.weights == tmp_path / "weights"


def test_a_size_is_read_with_its_unit() -> None:
    settings = load_settings({"MODELYARD_UPLOAD_SIZE": "500 MB"})
    assert settings.upload_bytes == 500_000_000
    assert load_settings({"MODELYARD_UPLOAD_SIZE": "2TB"}).upload_bytes == 2 * 10**12


def test_an_option_goes_before_the_environment() -> None:
    settings = load_settings({"MODELYARD_PORT": "1000"}, modelyard_port="2000")
    assert settings.port == 2000


def test_the_environment_goes_before_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("MODELYARD_PORT=1000\nMODELYARD_LOG_LEVEL=debug\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELYARD_PORT", "2000")
    settings = load_settings()
    assert (settings.port, settings.log_level) == (2000, "debug")


def test_a_misspelt_name_in_the_env_file_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("MODELYARD_HOEM=/x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="did you mean MODELYARD_HOME"):
        load_settings()


def test_an_empty_variable_means_the_default_but_no_gpu_is_a_choice() -> None:
    settings = load_settings({"MODELYARD_PORT": "", "MODELYARD_GPUS": ""})
    assert settings.port == 8808
    assert settings.gpus == ()
    assert load_settings({"MODELYARD_GPUS": "all"}).gpus is None


def test_a_postgres_url_gets_the_driver_that_is_installed() -> None:
    for url in ("postgres://u:p@db/x", "postgresql://u:p@db/x"):
        assert load_settings({"DATABASE_URL": url}).database_url == "postgresql+psycopg://u:p@db/x"


def test_a_kept_secret_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    secret = kept_secret(tmp_path / "secret.key")
    assert kept_secret(tmp_path / "secret.key") == secret
    assert len(secret) == 64
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_every_setting_has_one_row_in_the_documentation() -> None:
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)
    assert DOCS.read_text() == settings_page(), (
        "docs/settings.md is stale; run: .venv/bin/modelyard settings > docs/settings.md"
    )
