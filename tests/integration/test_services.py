"""The services that other tests stand on are real and fresh."""

from pathlib import Path

import botocore.exceptions
import psycopg
import pytest
import redis

from tests.services import RedisService, S3Service


def test_redis_asks_for_its_password(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.dbsize() == 0
        client.set("left", "behind")
    host = redis_url.rsplit("@", 1)[1]
    with redis.Redis.from_url(f"redis://{host}") as stranger:
        try:
            stranger.ping()
        except redis.AuthenticationError:
            return
    raise AssertionError("a client without the password was let in")


def test_redis_is_emptied_between_tests(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.get("left") is None


def test_a_killed_redis_keeps_what_it_acknowledged(redis_service: RedisService) -> None:
    with redis_service.client() as client:
        client.set("job", "queued")
    redis_service.kill()
    redis_service.start()
    with redis_service.client() as client:
        assert client.get("job") == "queued"


def test_postgres_gives_each_test_an_empty_database(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchone()
    assert tables == (0,)


def test_database_url_is_one_of_the_two(database_url: str) -> None:
    assert database_url.startswith(("sqlite:////", "postgresql+psycopg://"))


def test_a_killed_s3_server_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    service = S3Service(tmp_path / "s3")
    service.start()
    try:
        bucket, client = service.create_bucket(), service.client()
        for key in ("jobs/7/ein Name+ä", "jobs/7/gone", "jobs/7/gone too"):
            client.put_object(Bucket=bucket, Key=key, Body=b"first")
        client.put_object(Bucket=bucket, Key="jobs/7/ein Name+ä", Body=b"second")
        client.delete_object(Bucket=bucket, Key="jobs/7/gone")
        client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "jobs/7/gone too"}]})
        half = client.create_multipart_upload(Bucket=bucket, Key="jobs/7/half")["UploadId"]
        part = {"Bucket": bucket, "Key": "jobs/7/half", "UploadId": half, "PartNumber": 1}
        client.upload_part(**part, Body=b"of it")
        service.kill()
        service.start()
        (found,) = client.list_objects_v2(Bucket=bucket)["Contents"]
        assert found["Key"] == "jobs/7/ein Name+ä"
        assert client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read() == b"second"
    finally:
        service.stop()


def test_the_s3_server_refuses_a_key_that_it_does_not_know(
    s3: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = {**s3.environ, "AWS_ACCESS_KEY_ID": "stranger"}
    monkeypatch.setattr(S3Service, "environ", stranger)
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidAccessKeyId"):
        s3.client().list_buckets()
