"""The services that other tests stand on are real and fresh."""

import psycopg
import redis

from tests.services import RedisService


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
