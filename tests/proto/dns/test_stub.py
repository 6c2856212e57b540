"""Octets that claim to be the answer to our question."""

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.proto.dns.answer import Answerer
from fumibako.proto.dns.records import Mx, Rcode, Record
from fumibako.proto.dns.stub import NearMiss, Question, format_question, mix_case, parse_reply
from fumibako.proto.dns.zone import make_zone
from fumibako.proto.reader import ProtocolError

ZONE = make_zone("example.jp", [
    Record("example.jp", 3600, "SOA", "mail.example.jp. hostmaster.example.jp. 7 3600 900 1209600 300"),
    Record("example.jp", 3600, "NS", "mail.example.jp."),
    Record("example.jp", 3600, "MX", "10 mail.example.jp."),
    Record("www.example.jp", 30, "CNAME", "example.jp."),
])
QUESTION = Question(0x1234, "WwW.eXample.jp", "MX")


def answered(question=QUESTION):
    return Answerer([ZONE]).respond(format_question(question), udp=True)


def test_question_and_answer_fit():
    reply = parse_reply(answered(), QUESTION)
    assert (reply.rcode, reply.canonical_name, reply.ttl_s) == (Rcode.NOERROR, "example.jp", 30)
    assert reply.rdatas == (Mx(10, "mail.example.jp"),)


@pytest.mark.parametrize("question", [Question(0x1235, QUESTION.name, "MX"), Question(0x1234, "www.example.jp", "MX")])
def test_a_near_miss_is_told_apart(question):
    with pytest.raises(NearMiss):
        parse_reply(answered(), question)


@pytest.mark.parametrize("question", [Question(0x1234, "mail.example.jp", "MX"), Question(0x1234, QUESTION.name, "A")])
def test_another_question(question):
    with pytest.raises(ProtocolError, match="another question"):
        parse_reply(answered(), question)


def test_case_does_not_matter_over_tcp():
    assert parse_reply(answered(), Question(0x1234, "www.example.jp", "MX"), exact_case=False).rdatas


def test_at_most_256_records_are_read():
    response = dns.message.make_response(dns.message.from_wire(format_question(QUESTION)))
    response.answer = [dns.rrset.from_text("www.example.jp.", 1, "IN", "MX", *[f"{n} h." for n in range(400)])]
    assert len(parse_reply(response.to_wire(max_size=65535), QUESTION).rdatas) == 256


@given(st.binary(max_size=200))
def test_any_octets(octets):
    with pytest.raises(ProtocolError):
        parse_reply(octets, QUESTION)


@given(st.binary(max_size=100))
def test_any_octets_behind_a_good_header_and_question(octets):
    good = answered()[: 12 + len("www.example.jp") + 2 + 4]
    try:
        reply = parse_reply(good + octets, QUESTION)
    except ProtocolError:
        return
    assert reply.canonical_name


@given(st.integers(0, 200), st.integers(0, 255))
def test_one_octet_changed(position, value):
    wire = bytearray(answered())
    wire[position % len(wire)] = value
    try:
        reply = parse_reply(bytes(wire), QUESTION)
    except ProtocolError:
        return
    assert 0 <= reply.ttl_s <= 86_400


def test_mix_case_follows_the_bits():
    assert mix_case("mail.example", b"\xff" * 4) == "MAIL.EXAMPLE"
    assert mix_case("mail.example", b"\0" * 4) == "mail.example"
    assert mix_case("ab", b"\2") == "aB"
