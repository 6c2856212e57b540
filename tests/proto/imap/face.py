"""An IMAP face by script: it does what the dialogue says for a tag, else the least a server may do."""

from fumibako.proto.imap import commands as c
from fumibako.proto.imap.server import CommandReceived, ServerConfig, ServerConnection
from fumibako.proto.reader import Need, ProtocolError


def config_of(options: dict[str, str]) -> ServerConfig:
    """`tls_available=yes literal_plus=no max_append_octets=10` as a configuration."""
    switches = {name: options[name] == "yes" for name in options.keys() & {"tls_available", "tls_active", "literal_plus"}}
    return ServerConfig(
        "mail.example.jp", allow_plaintext_login=options.get("allow_plaintext_login", "yes") == "yes",
        auth_mechanisms=tuple(options.get("auth_mechanisms", "PLAIN").split(",")),
        max_append_octets=int(options.get("max_append_octets", "1000")), **switches,
    )


class ScriptedFace:
    """A Peer of tests.support.dialogue. start: "authenticated" or "selected" skips the greeting and the login.

    replies: tag -> `* untagged | + go on text | STATUS [CODE] text`. messages: what was appended, as (Append, octets).
    """

    def __init__(self, config: ServerConfig, replies: dict[str, str], start: str = "") -> None:
        self.core = ServerConnection(config)
        self.messages: list[tuple[c.Append, bytes]] = []
        self.events: list[object] = []
        self._replies = replies
        self._tag = ""
        self._append: c.Append | None = None
        self._octets = bytearray()
        if start:
            self.core.authenticated()
            if start == "selected":
                self.core.selected(read_only=False)
        else:
            self.core.greeting()

    def feed(self, octets: bytes) -> bytes:
        self.core.receive_data(octets)
        try:
            while not isinstance(event := self.core.next_event(), Need):
                self.events.append(event)
                self._answer(event)
        except ProtocolError:
            assert self.core.closed
        return self.core.data_to_send()

    def start_tls(self) -> None:
        self.core.tls_started()

    def _answer(self, event: object) -> None:
        match event:
            case CommandReceived(tag=tag, command=command):
                self._tag = tag.decode()
                self._carry_out(command)
            case c.AppendData(octets=octets):
                self._octets += octets
            case c.AppendEnd(more=more):
                assert self._append is not None
                self.messages.append((self._append, bytes(self._octets)))
                if not more:
                    self._finish("OK APPEND completed")
            case c.AppendAborted():
                self.messages.clear()
            case c.IdleDone():
                self.core.complete("OK", "IDLE terminated")
            case c.SaslResponse(octets=None):
                self.core.complete("BAD", "Cancelled")
            case c.SaslResponse():
                self._log_in()

    def _carry_out(self, command: c.Command) -> None:
        name = type(command).__name__.upper()
        match command:
            case c.Append():
                self._begin_append(command)
            case c.Idle():
                self._say("+ idling")
            case c.Authenticate(initial_response=None):
                self.core.challenge(b"")
            case c.Authenticate() | c.Login():
                self._log_in()
            case c.Logout():
                self.core.bye("Good bye")
                self._finish("OK LOGOUT completed")
            case c.Capability():
                self.core.untagged(self.core.capability())
                self._finish("OK CAPABILITY completed")
            case c.Enable(capabilities=names):
                self.core.enable(names)
                self._finish("OK ENABLE completed")
            case c.Select(read_only=read_only):
                self.core.selected(read_only=read_only)
                self._finish(f"OK [READ-{'ONLY' if read_only else 'WRITE'}] done")
            case c.Close() | c.Unselect():
                self.core.unselected()
                self._finish(f"OK {name} completed")
            case _:
                self._finish(f"OK {name} completed")

    def _begin_append(self, command: c.Append) -> None:
        self._append, self._octets = command, bytearray()
        if self._replies.get(self._tag, "OK").startswith(("NO", "BAD")):
            self._finish("")
        else:
            self.core.continue_("Ready")

    def _log_in(self) -> None:
        usual = self._replies.get(self._tag, "OK logged in")
        if usual.startswith("OK"):
            self.core.authenticated()
        self._finish(usual)

    def _finish(self, usual: str) -> None:
        for part in self._replies.get(self._tag, usual).split(" | "):
            self._say(part)

    def _say(self, part: str) -> None:
        mark, _, text = part.partition(" ")
        if mark == "*":
            self.core.untagged(text.encode())
        elif mark == "+":
            self.core.continue_(text)
        else:
            code = b""
            if text.startswith("["):
                inside, _, text = text[1:].partition("] ")
                code = inside.encode()
            self.core.complete(mark, text, code)
