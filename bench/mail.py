"""The messages that FETCH is measured on: always the same ones, of the kinds a company's mailbox holds."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator

_WORDS = ("meeting", "invoice", "quarter", "delivery", "factory", "estimate", "schedule", "contract", "review", "office")
_SUBJECTS = ("=?UTF-8?B?5b6h6KaL56mN44Gu5Lu2?=", "Re: weekly meeting", "=?ISO-2022-JP?B?GyRCMnE1RBsoQg==?=", "Your order 4711")


def corpus(count: int) -> Iterator[bytes]:
    """A third each: plain text, text with HTML, text with an attachment."""
    chance = random.Random(count)
    for number in range(count):
        yield _header(number, chance) + (_plain, _alternative, _mixed)[number % 3](number, chance)


def _header(number: int, chance: random.Random) -> bytes:
    received = "".join(
        f"Received: from relay{hop}.example.net (relay{hop}.example.net [192.0.2.{hop}])\r\n"
        f"\tby mx.example.test with ESMTPS id {chance.getrandbits(64):x};\r\n\tTue, 24 Nov 2026 05:{hop:02}:00 +0900\r\n"
        for hop in range(3))
    to = ", ".join(f'"Person {one}" <p{one}@example.test>' for one in range(1 + number % 4))
    return (received + f"From: Sender {number % 50} <sender{number % 50}@example.org>\r\nTo: {to}\r\n"
            f"Subject: {_SUBJECTS[number % 4]}\r\nDate: Tue, {1 + number % 28} Nov 2026 09:{number % 60:02}:00 +0900\r\n"
            f"Message-ID: <{number}.{chance.getrandbits(48):x}@example.org>\r\nMIME-Version: 1.0\r\n").encode()


def _text(chance: random.Random, lines: int) -> str:
    return "".join(" ".join(chance.choices(_WORDS, k=9)) + "\r\n" for _ in range(lines))


def _plain(number: int, chance: random.Random) -> bytes:
    return f"Content-Type: text/plain; charset=utf-8\r\n\r\n{_text(chance, 40)}".encode()


def _alternative(number: int, chance: random.Random) -> bytes:
    text, boundary = _text(chance, 30), f"=_alt_{number}"
    return (f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n\r\n'
            f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}"
            f"--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
            f"<html><body><p>{text}</p></body></html>\r\n--{boundary}--\r\n").encode()


def _mixed(number: int, chance: random.Random) -> bytes:
    boundary = f"=_mix_{number}"
    attachment = base64.encodebytes(chance.randbytes(6000)).replace(b"\n", b"\r\n").decode()
    return (f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n'
            f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{_text(chance, 20)}"
            f'--{boundary}\r\nContent-Type: application/pdf; name="report-{number}.pdf"\r\n'
            "Content-Transfer-Encoding: base64\r\n"
            f'Content-Disposition: attachment; filename="report-{number}.pdf"\r\n\r\n{attachment}--{boundary}--\r\n').encode()
