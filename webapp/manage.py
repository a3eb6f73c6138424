"""What is done to the database before the services start: ``python -m webapp.manage COMMAND``."""

from __future__ import annotations

import sys

import click
from sqlalchemy.exc import OperationalError

from modelyard.settings import SettingsError
from webapp import create_app
from webapp.services import accounts, schema
from webapp.services.errors import ServiceError


@click.group()
def manage() -> None:
    """Prepare Modelyard's database."""


@manage.command()
def migrate() -> None:
    """Create the tables, or bring them up to date."""
    with create_app().app_context():
        schema.migrate()


@manage.command("ensure-admin")
def ensure_admin() -> None:
    """Create the administrator where there is none; tell a made-up password this once."""
    with create_app().app_context():
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
    except (SettingsError, ServiceError) as error:
        click.echo(f"modelyard: {error}", err=True)
        return 1
    except OperationalError as error:
        click.echo(f"modelyard: the database does not answer: {error.orig}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
