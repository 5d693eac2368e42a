"""The Kafka URL: every option, every refusal."""

from __future__ import annotations

import pytest

from headrace.sync.logs.kafka_url import KafkaUrl


def test_the_shortest_url_takes_every_default() -> None:
    url = KafkaUrl.parse("kafka://broker")
    assert (url.servers, url.prefix, url.compression) == ("broker:9092", "headrace", "lz4")
    assert url.client_options()["security_protocol"] == "PLAINTEXT"


def test_topics_and_groups_carry_the_prefix() -> None:
    url = KafkaUrl.parse("kafka://a:1,b:2?prefix=shop")
    assert url.servers == "a:1,b:2"
    assert url.topic("realtime") == "shop.realtime"
    assert url.dead_letter_topic == "shop.dead-letters"
    assert url.group("writer") == "shop.writer"


def test_a_user_turns_sasl_on_and_tls_turns_ssl_on() -> None:
    options = KafkaUrl.parse(
        "kafka://a?user=u&password=p%26w&mechanism=SCRAM-SHA-256&tls=true"
    ).client_options()
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "SCRAM-SHA-256"
    assert options["sasl_plain_password"] == "p&w"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http://a", "no Kafka URL"),
        ("kafka://", "no Kafka URL"),
        ("kafka://a?prefx=b", "unknown option `prefx`"),
        ("kafka://a?compression=gzip", "compression `gzip` is unknown"),
        ("kafka://a?user=u&password=p&mechanism=plain", "mechanism `plain` .* is unknown"),
        ("kafka://a?mechanism=SCRAM-SHA-256", "`mechanism` needs `user` and `password`"),
        ("kafka://a?user=u", "option `user` needs `password` beside it"),
        ("kafka://a?tls=yes", "`tls=yes`: expected `true` or `false`"),
        ("kafka://u:p@a", "a login before the host is not read"),
        ("kafka://a,", "a broker without a host"),
        ("kafka://a:x", "port `x` is no whole number from 1 to 65535"),
        ("kafka://a?partitions=0", "expected a positive whole number"),
        ("kafka://a?partitions=x", "expected a positive whole number"),
    ],
)
def test_a_wrong_url_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        KafkaUrl.parse(text)
