"""The cache URL: every option, every refusal."""

from __future__ import annotations

import pytest

from headrace.registry.cache_url import CacheNode, CacheUrl
from headrace.registry.errors import SettingsError


def test_the_shortest_url_takes_every_default() -> None:
    url = CacheUrl.parse("redis://cache")
    assert url == CacheUrl(nodes=(CacheNode("cache", 6379),))
    assert (url.epoch, url.resp, url.database) == (1, 3, 0)


def test_several_hosts_are_several_nodes() -> None:
    url = CacheUrl.parse("redis://u:p%40ss@a:1,b/2?epoch=7&tls=true&resp=2")
    assert [node.name for node in url.nodes] == ["a:1", "b:6379"]
    assert (url.user, url.password) == ("u", "p@ss")
    assert (url.database, url.epoch, url.tls, url.resp) == (2, 7, True, 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http://a", "is no cache URL"),
        ("redis://", "is no cache URL"),
        ("redis://a,", "a node without a host"),
        ("redis://a:x", "port `x` is no whole number"),
        ("redis://a:99999", "port `99999` is no whole number from 1 to 65535"),
        ("redis://me@a", "has a user without a password"),
        ("redis://a?tls=yes", "`tls=yes`: expected `true` or `false`"),
        ("redis://a?cluster=1", "`cluster=1`: expected `true` or `false`"),
        ("redis://a?resp=4", "`resp=4`: expected `2` or `3`"),
        ("redis://a?epok=1", "unknown option `epok`; did you mean `epoch`"),
        ("redis://a?epoch=-1", "epoch `-1` is no whole number"),
    ],
)
def test_a_wrong_url_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        CacheUrl.parse(text)


def test_the_nodes_of_a_cluster_are_where_to_begin() -> None:
    url = CacheUrl.parse("redis://a:7000,b:7001/0?cluster=true")
    assert (url.cluster, [node.name for node in url.nodes]) == (True, ["a:7000", "b:7001"])
    assert not CacheUrl.parse("redis://a").cluster


def test_a_cluster_has_one_database() -> None:
    with pytest.raises(SettingsError, match="database 0 only, not `3`"):
        CacheUrl.parse("redis://a/3?cluster=true")


@pytest.mark.parametrize(
    "text", ["rediss://u:secret@a", "redis://u:secret@a:x", "redis://[:secret@a"]
)
def test_a_wrong_url_is_told_without_its_password(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        CacheUrl.parse(text)
    assert "secret" not in str(refused.value)
