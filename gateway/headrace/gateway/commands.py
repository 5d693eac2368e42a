"""`POST /v1/commands`: check a list of commands, append the good ones, name the others."""

from __future__ import annotations

import msgspec

from headrace.codec import Rejection, encode_commands
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.errors import LogUnavailable, TooManyCommands, UnreadableRequest
from headrace.gateway.ports import Clock, CommandAppender
from headrace.gateway.wire import AppendedShape, CommandsShape, RefusedShape

COMMANDS_MAX = 10_000
"""Commands of one list; the body limit is usually met first."""

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class CommandIntake:
    """From HTTP to the log; refused commands go back, not to dead letters (semantics 17)."""

    def __init__(
        self, in_force: CatalogInForce, appender: CommandAppender | None, clock: Clock
    ) -> None:
        self._in_force = in_force
        self._appender = appender
        self._clock = clock

    async def take(self, body: bytes) -> CommandsShape:
        """Durable on return. Raises `LogUnavailable` and what `read_list` raises."""
        payloads = read_list(body)
        if self._appender is None:
            raise LogUnavailable("this gateway has no command log; set `commands` in its settings")
        catalog = self._in_force.catalog
        batch = encode_commands(catalog, payloads, now_ms=self._clock())
        accepted = [(index, key) for index, _, key, _ in batch.coordinates()]
        places = await self._appender.append([(key, payloads[index]) for index, key in accepted])
        placed = [(index, place) for (index, _), place in zip(accepted, places, strict=True)]
        return CommandsShape(
            generation=catalog.generation,
            appended=tuple(
                AppendedShape(
                    index=index, topic=place.topic, partition=place.partition, offset=place.offset
                )
                for index, place in placed
                if place is not None
            ),
            refused=tuple(
                sorted(
                    [
                        *map(_refused, batch.rejections),
                        *(
                            _too_large(index, len(payloads[index]))
                            for index, place in placed
                            if place is None
                        ),
                    ],
                    key=lambda refused: refused.index,
                )
            ),
        )


def _refused(rejection: Rejection) -> RefusedShape:
    return RefusedShape(
        index=rejection.index,
        code=rejection.code,
        detail=rejection.message,
        path=rejection.path,
        offset=rejection.offset,
    )


def _too_large(index: int, command_bytes: int) -> RefusedShape:
    detail = (
        f"the command takes {command_bytes} bytes, more than the command log takes; make it smaller"
    )
    return RefusedShape(index=index, code="TOO_LARGE", detail=detail, path="", offset=None)


def read_list(body: bytes) -> list[bytes]:
    """The commands of a list, each as the caller's own bytes.

    Raises `UnreadableRequest` and `TooManyCommands`.
    """
    try:
        body.decode("utf-8")
        commands = _decode_list(body)
    except UnicodeDecodeError as error:
        raise UnreadableRequest(f"the body is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise UnreadableRequest(
            "expected a JSON list of commands, got JSON nested deeper than any command"
        ) from None
    except msgspec.DecodeError as error:
        raise UnreadableRequest(f"expected a JSON list of commands: {error}") from None
    if len(commands) > COMMANDS_MAX:
        raise TooManyCommands(
            f"expected at most {COMMANDS_MAX} commands a request, got {len(commands)};"
            " send them in several"
        )
    return [bytes(command) for command in commands]
