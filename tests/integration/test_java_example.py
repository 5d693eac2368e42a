"""The Java example reads from a running gateway with Apache Avro alone what JSON answers."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from gateway_over_lmdb import ROWS, served, store_gateway
from running_gateway import Connection, post

from headrace.loadtest.feature_data import HISTORY, OBJECT
from headrace.loadtest.servers.cache import maven_jars

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "java"
LIMIT_S = 120
USERS = [3, 1, ROWS + 1, 2, 3]
BODY: dict[str, Any] = {
    "reads": [
        {"feature_group": OBJECT, "keys": {"user_id": USERS}},
        {"feature_group": HISTORY, "keys": {"user_id": [1, 99]}, "limit": 4},
    ]
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[int]:
    gateway = await store_gateway(tmp_path_factory.mktemp("java") / "online")
    async with served(gateway.app) as port:
        yield port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path of the example, compiled with every warning an error."""
    jars = await asyncio.to_thread(maven_jars, "avro-1.12.0", EXAMPLE / "pom.xml")
    folder = tmp_path_factory.mktemp("classes")
    flags = ["--release", "17", "-Xlint:all", "-Werror", "-cp", f"{jars}/*", "-d", str(folder)]
    status, _, said = await run("javac", *flags, str(EXAMPLE / "ReadAvro.java"))
    assert status == 0, said
    return f"{folder}:{jars}/*"


async def run(program: str, *arguments: str) -> tuple[int | None, str, str]:
    """Exit status and what was printed, to standard output and to the error stream."""
    found = shutil.which(program)
    assert found is not None, f"the example needs a JDK, and no `{program}` is on PATH"
    process = await asyncio.create_subprocess_exec(found, *arguments, stdout=PIPE, stderr=PIPE)
    printed, said = await asyncio.wait_for(process.communicate(), LIMIT_S)
    return process.returncode, printed.decode(), said.decode()


async def test_java_prints_what_json_answers(port: int, classes: str) -> None:
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))
    answered = await connection.exchange(post(json.dumps(BODY).encode()))
    answer: dict[str, Any] = json.loads(answered.body)
    connection.close()
    gateway = f"http://127.0.0.1:{port}"
    status, printed, said = await run("java", "-cp", classes, "ReadAvro", gateway, json.dumps(BODY))
    assert (status, said) == (0, "")
    lines = [line.split("\t") for line in printed.splitlines()]
    assert [line for line in lines if not line[3].startswith("{")] == [
        [OBJECT, "2", "MISSING", "[]"],
        [HISTORY, "1", "MISSING", "[]"],
    ]
    records = [
        (group, int(row), json.loads(text)) for group, row, _, text in lines if text[0] == "{"
    ]
    objects, histories = answer["results"]
    names = objects["fields"]
    assert [(row, record) for group, row, record in records if group == OBJECT] == [
        (row, dict(zip(names, values, strict=True)))
        for row, values in enumerate(objects["rows"])
        if USERS[row] < ROWS
    ]
    names = histories["fields"][1:]
    assert [record for group, _, record in records if group == HISTORY] == [
        dict(zip(names, event[1:], strict=True)) for event in histories["rows"][0]
    ]
    times = [int(time) for group, _, time, text in lines if group == HISTORY and text[0] == "{"]
    assert times == [event[0] for event in histories["rows"][0]]


async def test_a_mistake_is_told_in_the_words_of_the_gateway(port: int, classes: str) -> None:
    body = '{"reads":[{"feature_group":"load::recrod-v1","keys":{"user_id":[1]}}]}'
    gateway = f"http://127.0.0.1:{port}"
    status, _, said = await run("java", "-cp", classes, "ReadAvro", gateway, body)
    assert status == 1
    number, _, text = said.partition(" ")
    problem = json.loads(text)
    assert (number, problem["code"], problem["nearest"]) == ("404", "UNKNOWN_GROUP", OBJECT)
