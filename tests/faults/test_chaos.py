"""The short form of `make chaos`: a minute of random kills, with leases of eight seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import chaos


# A minute, and what is left of chaos.SETTLE_SECONDS in the worst case.
@pytest.mark.timeout(600)
def test_a_minute_of_random_kills_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTS_LEASE_SECONDS", "8")
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    after, found, _ = chaos.run(home=tmp_path, database_url=url, seed=7, minutes=1.0, jobs=12)
    assert found.all() == []
    assert after.kills.total() >= 5
    assert len(after.accepted) == 12
