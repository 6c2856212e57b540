"""DNS messages, zones and answers as pure functions; dnspython is the codec, the answer algorithm is ours.

Specification: RFC 1034, RFC 1035, RFC 2181, RFC 2308, RFC 6891, RFC 8482.
Contract: no sockets, no clock, no chance: ids and random bits are arguments. dnspython and idna lodge here only.
Failure: `fumibako.proto.reader.ProtocolError` for octets no answer is due to; `ZoneError` for records that make no zone.
"""
