"""`modelyard backup` and `modelyard restore`."""

from __future__ import annotations

import click

from modelyard import launch
from modelyard.settings import load_settings

_PLACES = (
    "DATABASE_URL",
    "MODELYARD_OUTPUTS",
    "MODELYARD_STORE",
    "MODELYARD_UPLOADS",
    "MODELYARD_DATA_ROOTS",
    "MODELYARD_WEIGHTS",
    "TRAINING_EXECUTION_MODE",
)
_home = click.option("--home", help="Folder of the instance [MODELYARD_HOME].")


@click.command("backup")
@click.argument("file", required=False)
@_home
@click.option("--with-outputs", is_flag=True, help="Also checkpoints and artifacts of ended jobs.")
def backup_command(file: str | None, home: str | None, with_outputs: bool) -> None:
    """Write all that this web host knows to one FILE, while everything runs.

    In it are the database as it is at this moment; secret.key, flower.password and
    admin.password of the home folder; the list of all files that jobs have written, with sizes
    and checksums; and which settings are not the defaults. Not in it are data sets, weights, the
    checkpoints themselves (unless --with-outputs), Redis, and secrets that only the environment
    or a .env file holds (REDIS_URL, DATABASE_URL, MODELYARD_SECRET_KEY): keep those yourself.

    FILE is by default modelyard-<time>.tar.gz here; '-' is standard output. Only its owner may
    read it.
    """
    from modelyard.commands.env import instance_environ

    chosen = load_settings(modelyard_home=home).home
    arguments = [*(["--with-outputs"] if with_outputs else []), *([file] if file else [])]
    # A running instance says best where its database and its folders are.
    told = {name: v for name, v in instance_environ(chosen).items() if name in _PLACES}
    environ = {"MODELYARD_HOME": str(chosen), **told}
    launch.become(launch.manage_command("backup", *arguments), environ)


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@_home
@click.option("--replace", is_flag=True, help="Replace what is there, after a backup of it.")
@click.option("--check-outputs", is_flag=True, help="Also compare the content of jobs' files.")
def restore_command(file: str, home: str | None, replace: bool, check_outputs: bool) -> None:
    """Bring the backup FILE back into an empty database and home folder.

    Web and recorder must be stopped; workers may go on. Either all of it is restored or nothing
    is changed. The database may be another one than before: PostgreSQL in place of SQLite, or the
    other way round. A backup of an older version is brought up to date.
    """
    flags = [("--replace", replace), ("--check-outputs", check_outputs)]
    arguments = [*(flag for flag, wanted in flags if wanted), file]
    environ = {"MODELYARD_HOME": home} if home else {}
    launch.become(launch.manage_command("restore", *arguments), environ)
