"""Command lines as values: RFC 5321 §4.1.1 and the parameters of its extensions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumibako.model.envelope import Notify
from fumibako.proto.smtp.command import CommandError, parse_command
from fumibako.proto.smtp.events import (
    Auth,
    Bdat,
    Command,
    Data,
    Expand,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Reset,
    StartTLS,
    Verify,
)

MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"})
RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


def parse(line: bytes, *, smtputf8: bool = False) -> Command:
    return parse_command(line, MAIL_PARAMETERS, RCPT_PARAMETERS, smtputf8)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"EHLO a.example", Hello("a.example", True)),
        (b"helo [192.0.2.1]", Hello("[192.0.2.1]", False)),
        (b"STARTTLS", StartTLS()),
        (b"AUTH plain", Auth("PLAIN", None)),
        (b"AUTH SCRAM-SHA-256 =", Auth("SCRAM-SHA-256", b"")),
        (b"AUTH PLAIN AGEAYg==", Auth("PLAIN", b"\0a\0b")),
        (b"MAIL FROM:<>", Mail("")),
        (b"mail from:<a@b.example> size=10", Mail("a@b.example", 10)),
        (b"MAIL FROM: <a@b.example>", Mail("a@b.example")),
        (b'MAIL FROM:<"a> SIZE=1"@b.example>', Mail('"a> SIZE=1"@b.example')),
        (
            b"MAIL FROM:<a@b.example> BODY=8bitmime RET=hdrs ENVID=Q+2B",
            Mail("a@b.example", body="8BITMIME", ret="HDRS", envelope_id="Q+"),
        ),
        (b"MAIL FROM:<a@b.example> AUTH=<>", Mail("a@b.example", auth="<>")),
        (b"MAIL FROM:<a@b.example> AUTH=e+3Dmc2@c.example", Mail("a@b.example", auth="e=mc2@c.example")),
        ("MAIL FROM:<あ@b.example> SMTPUTF8".encode(), Mail("あ@b.example", smtputf8=True)),
        (b"RCPT TO:<Postmaster>", Rcpt("Postmaster")),
        (b"RCPT TO:<a@b.example> NOTIFY=NEVER", Rcpt("a@b.example", Notify.NEVER)),
        (
            b"RCPT TO:<a@b.example> NOTIFY=success,Delay ORCPT=rfc822;x+2By@z.example",
            Rcpt("a@b.example", Notify.SUCCESS | Notify.DELAY, "rfc822;x+y@z.example"),
        ),
        (b"DATA", Data()),
        (b"BDAT 0", Bdat(0, False)),
        (b"BDAT 12 LAST", Bdat(12, True)),
        (b"RSET", Reset()),
        (b"VRFY a b", Verify("a b")),
        (b"EXPN list", Expand("list")),
        (b"HELP", Help("")),
        (b"NOOP whatever", Noop()),
        (b"QUIT \t", Quit()),
    ],
)
def test_commands(line: bytes, command: Command) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"VRFY", "501 5.5.4"),
        (b"AUTH", "501 5.5.4"),
        (b"AUTH PLAIN A", "501 5.5.2"),
        (b"AUTH PLAIN AB==", "501 5.5.2"),
        (b"MAIL FROM:<a@b.example> SIZE", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> SIZE=", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> SIZE=-1", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> SIZE=111111111111111111111", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> =1", "501 5.5.4"),
        (b"MAIL FROM:<a@b.example> ENVID=" + b"a" * 101, "501 5.5.4"),
        (b"RCPT TO:<a@b.example> ORCPT=rfc822", "501 5.5.4"),
        (b"RCPT TO:<a@b.example> ORCPT=rfc822;a+0Ab", "501 5.5.4"),
        (b"RCPT TO:<a@b.example> NOTIFY=", "501 5.5.4"),
        (b"RCPT TO:<a@b.example> SIZE=1", "555 5.5.4"),
        (b"RCPT TO:<a@b.example>,<c@d.example>", "501 5.5.4"),
        (b"EHLO " + b"a" * 256, "501 5.5.4"),
        ("EHLO あ".encode(), "501 5.5.4"),
        (b"\xffEHLO", "500 5.5.2"),
        (b"BDAT", "501 5.5.4"),
        (b"BDAT 1 FIRST", "501 5.5.4"),
        (b"BDAT -1", "501 5.5.4"),
    ],
)
def test_refusals(line: bytes, reply: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse(line)
    assert str(caught.value.reply).startswith(reply)
    assert caught.value.fatal == line.startswith(b"BDAT")


@given(
    st.binary(max_size=60)
    | st.tuples(
        st.sampled_from([b"MAIL FROM:", b"RCPT TO:", b"AUTH ", b"BDAT ", b"EHLO ", b"VRFY "]),
        st.text('<>@a." =+0A,;SIZEORCPT文', max_size=30).map(str.encode),
    ).map(b"".join)
)
def test_any_line_is_a_command_or_a_command_error(line: bytes) -> None:
    try:
        parse(line, smtputf8=True)
    except CommandError as error:
        assert error.reply.code >= 500
