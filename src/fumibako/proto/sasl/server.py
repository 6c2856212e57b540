"""The server mechanisms by name.

Specification: RFC 4422 §3; the mechanisms name their own.
Contract: a mechanism serves one exchange: step(octets) until a step that ends it.
Failure: ValueError for a name that is not in MECHANISMS, or -PLUS without channel binding data.
"""

from fumibako.proto.sasl.plain import LoginServer, PlainServer
from fumibako.proto.sasl.scram import PLUS, ScramServer

# In the order to offer them: the strongest first.
MECHANISMS = (PLUS, "SCRAM-SHA-256", "PLAIN", "LOGIN")

ServerMechanism = PlainServer | LoginServer | ScramServer


def server_mechanism(name: str, nonce: bytes, channel_binding: bytes | None = None) -> ServerMechanism:
    """A mechanism for one exchange.

    nonce: 18 random octets or more as base64 text, fresh; channel_binding: tls-server-end-point data (RFC 5929 §4)
    where the connection has it.
    """
    match name:
        case "PLAIN":
            return PlainServer()
        case "LOGIN":
            return LoginServer()
        case "SCRAM-SHA-256" | "SCRAM-SHA-256-PLUS":
            return ScramServer(name, nonce, channel_binding)
    raise ValueError(f"no such mechanism: {name}")
