"""What is done to the database before the services start: ``python -m webapp.manage COMMAND``."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from flask import Flask
from sqlalchemy.exc import OperationalError

from modelyard.settings import Settings, SettingsError, load_settings
from modelyard.storage import StorageError
from webapp import create_app
from webapp.services import (
    accounts,
    backup,
    deletion,
    disk_use,
    restore,
    restore_report,
    retention,
    retention_report,
    schema,
)
from webapp.services.backup_archive import BackupError
from webapp.services.errors import ServiceError

UNUSED_KEY = "nothing is signed with this one. "  # an application wants a key


@click.group()
def manage() -> None:
    """Prepare Modelyard's database."""


@manage.command()
def migrate() -> None:
    """Create the tables, or bring them up to date."""
    with _app_without_broker(load_settings()).app_context():
        schema.migrate()


@manage.command("backup")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--with-outputs", is_flag=True)
def backup_command(file: Path | None, with_outputs: bool) -> None:
    """Write a backup to a file, or to standard output for '-'."""
    with _offline_app().app_context():
        if file == Path("-"):
            _backup_to_standard_output(with_outputs=with_outputs)
            return
        file = file or Path(backup.default_name(datetime.now(UTC)))
        manifest = backup.backup_to(file, with_outputs=with_outputs)
        for line in restore_report.backup_lines(manifest, file, database=backup.database()):
            click.echo(line)


def _backup_to_standard_output(*, with_outputs: bool) -> None:
    """Write a backup for another program. Raises BackupError where it does not take all of it."""
    try:
        backup.backup(sys.stdout.buffer, with_outputs=with_outputs)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest is not wanted
        raise BackupError(
            f"The backup is not whole: standard output does not take it: {error.strerror}"
        ) from error


@manage.command("restore")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True)
@click.option("--check-outputs", is_flag=True)
def restore_command(file: Path, replace: bool, check_outputs: bool) -> None:
    """Bring a backup back."""
    with _offline_app().app_context():
        report = restore.restore(file, replace=replace, check_outputs=check_outputs)
        for line in restore_report.restore_lines(report):
            click.echo(line)


@manage.command("gc")
@click.option("--dry-run", is_flag=True)
@click.option("--json", "as_json", is_flag=True)
def gc_command(dry_run: bool, as_json: bool) -> None:
    """Remove what is kept no more, or tell what that is."""
    with _offline_app().app_context():
        schema.check()  # what it does not find in the database, it removes
        if dry_run:
            report = retention.look()
        else:
            report = retention.collect(by_person=True)
            deletion.finish()
            disk_use.measure()
        if as_json:
            click.echo(json.dumps(retention_report.as_json(report, dry_run=dry_run), indent=2))
            return
        for line in retention_report.lines(report, dry_run=dry_run):
            click.echo(line)


def _offline_app() -> Flask:
    """Return an application that asks no broker and makes no key of its own."""
    settings = load_settings()
    key = settings.secret_key or UNUSED_KEY
    app = _app_without_broker(dataclasses.replace(settings, secret_key=key))
    app.config["MODELYARD"] = settings
    return app


def _app_without_broker(settings: Settings) -> Flask:
    return create_app(dataclasses.replace(settings, execution_mode="subprocess"))


@manage.command("ensure-admin")
def ensure_admin() -> None:
    """Create the administrator where there is none; tell a made-up password this once."""
    with _app_without_broker(load_settings()).app_context():
        created = accounts.ensure_admin()
    if created is None:
        return
    email, password = created
    click.echo(f"Administrator {email}" + (f", password {password}" if password else ""))


def main() -> int:
    """Run a command; a refusal is one line, not a traceback."""
    try:
        manage(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (SettingsError, StorageError, ServiceError) as error:
        click.echo(f"modelyard: {error}", err=True)
        return 1
    except OperationalError as error:
        click.echo(f"modelyard: the database does not answer: {error.orig}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
