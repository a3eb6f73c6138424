"""Takes from Redis what the web host asks of trained models, and has it done beside training.

A lane for each kind of request: a thread that waits for requests, and a tool process that an
export of a minute does not keep from a prediction of a moment. Works while every slot trains.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import redis

from adapters import wire
from adapters.contract import ErrorKind
from adapters.wire import AskKind
from modelyard.settings import Settings
from modelyard.storage import StorageError
from modelyard.tool_process import EXPORTS, PREDICTIONS, ToolError, ToolProcess
from workers.stored_models import StoredModels

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 5
_RETRY_SECONDS = 1.0
_RENEWAL_SECONDS = wire.ASKED_TTL_SECONDS / 3
_PURPOSES = {AskKind.PREDICT: PREDICTIONS, AskKind.EXPORT: EXPORTS}


class Asks:
    """The lanes of one worker."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        settings: Settings,
        name: str,
        frameworks: Sequence[str],
    ) -> None:
        self._lanes = [
            _Lane(kind, client, settings=settings, name=name, frameworks=frameworks)
            for kind in AskKind
        ]

    def start(self) -> None:
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        """Take no more requests and end the tool processes, whatever they are at."""
        for lane in self._lanes:
            lane.stop()


class _Lane:
    def __init__(
        self,
        kind: AskKind,
        client: redis.Redis,
        *,
        settings: Settings,
        name: str,
        frameworks: Sequence[str],
    ) -> None:
        self._kind = kind
        self._client = client
        self._name = name
        self._keys = [wire.ask_key(framework, kind) for framework in frameworks]
        self._tool = ToolProcess(settings, purpose=_PURPOSES[kind])
        self._models = StoredModels(settings)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"asks-{kind}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._tool.close()

    def _loop(self) -> None:
        redis_answers = True
        while not self._stopped.is_set():
            try:
                taken = self._client.blpop(self._keys, timeout=_WAIT_SECONDS)
                redis_answers = True
                if taken is not None:
                    self._serve(cast("tuple[bytes, bytes]", taken)[1])
            except redis.RedisError as error:
                if redis_answers:
                    logger.warning("requests wait: Redis does not answer: %s", error)
                redis_answers = False
                self._stopped.wait(_RETRY_SECONDS)
            except Exception:  # the lane outlives any one request
                logger.exception("a request failed")

    def _serve(self, text: bytes) -> None:
        try:
            request = json.loads(text)
            request_id, expires_at = str(request["id"]), float(request["expires_at"])
        except (ValueError, KeyError, TypeError) as error:
            logger.error("a request cannot be read and is dropped: %r", error)
            return
        if time.time() > expires_at:
            return  # whoever asked waits no more
        with _Claim(self._client, request_id, name=self._name):
            answer = self._answer(request)
        key = wire.answer_key(request_id)
        pipe = self._client.pipeline()
        pipe.delete(key)  # an earlier one, of a worker that was thought to be lost
        pipe.rpush(key, json.dumps(answer, allow_nan=False))
        pipe.expire(key, wire.ANSWER_TTL_SECONDS[self._kind])
        pipe.execute()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._models.have(request)
            answer = self._tool.ask(request)
            self._models.keep(request, answer)
            return answer
        except ToolError as error:
            return self._refusal(ErrorKind.CHILD_DIED, str(error))
        except StorageError as error:
            return self._refusal(ErrorKind.STORAGE, str(error), hint="Try again later.")

    def _refusal(self, kind: ErrorKind, message: str, *, hint: str = "") -> dict[str, Any]:
        told = f"Worker {self._name}: {message}"
        return {"error": {"kind": str(kind), "message": told, "hint": hint}}


class _Claim:
    """Says who is at a request for as long as that is true."""

    def __init__(self, client: redis.Redis, request_id: str, *, name: str) -> None:
        self._client = client
        self._key = wire.asked_key(request_id)
        self._name = name
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="asks-claim", daemon=True)

    def __enter__(self) -> None:
        self._claim()
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._done.wait(_RENEWAL_SECONDS):
            try:
                self._claim()
            except redis.RedisError:
                logger.debug("a claim is renewed when Redis is back")

    def _claim(self) -> None:
        self._client.set(self._key, self._name, ex=int(wire.ASKED_TTL_SECONDS))
