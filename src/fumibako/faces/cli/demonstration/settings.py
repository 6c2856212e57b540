"""What to type and to fill in while the servers of the demonstration stay up.

Contract: lines that can be pasted into a shell as they are, with the addresses, ports and passwords of this run.
"""

from __future__ import annotations

from shlex import quote

from fumibako.faces.cli.demonstration.journey import ALICE, BOB
from fumibako.faces.cli.demonstration.maildir import YOU
from fumibako.faces.cli.demonstration.screen import Words
from fumibako.faces.cli.demonstration.world import World
from fumibako.services.texts import N_


def shell_lines(world: World) -> list[str]:
    """Commands for curl, swaks, neomutt, openssl, dig and fumibako itself."""
    a, b = world.a, world.b
    reader = YOU if YOU in b.accounts else BOB
    alice, password = quote(a.accounts[ALICE]), quote(b.accounts[reader])
    imaps, smtps = b.ports["imaps"], a.ports["submissions"]
    trust = f"-servername {b.hostname} -CAfile {b.certificate} -verify_return_error"
    return [
        f"curl --cacert {b.certificate} --resolve {b.hostname}:{imaps}:{b.address} --user {reader}:{password} "
        f"'imaps://{b.hostname}:{imaps}/INBOX;MAILINDEX=1'",
        f"printf 'From: {ALICE}\\r\\nTo: {BOB}\\r\\nSubject: curl\\r\\n\\r\\nhello\\r\\n' | "
        f"curl --cacert {a.certificate} --resolve {a.hostname}:{smtps}:{a.address} --user {ALICE}:{alice} "
        f"--mail-from {ALICE} --mail-rcpt {BOB} --upload-file - smtps://{a.hostname}:{smtps}",
        f"swaks --server {a.address} --port {a.ports['submission']} --tls --auth PLAIN --auth-user {ALICE} "
        f"--auth-password {alice} --from {ALICE} --to {BOB}",
        f"neomutt -n -e 'set folder=imaps://{b.address}:{imaps} imap_user={reader} imap_pass={password} ssl_verify_host=no "
        f"ssl_ca_certificates_file={b.certificate}' -f imaps://{b.address}:{imaps}/INBOX",
        f"openssl s_client -connect {b.address}:{imaps} {trust} -quiet",
        f"openssl s_client -connect {b.address}:{b.ports['smtp']} -starttls smtp {trust}",
        f"dig @{world.resolver.host} -p {world.resolver.port} {b.domain} MX",
        f"fumibako trace {BOB} --data {a.directory}",
    ]


def thunderbird_lines(world: World, words: Words) -> list[str]:
    """The account set-up of a mail program, for everybody."""
    lines = []
    for server in (world.a, world.b):
        lines += [words(N_("{address}: user name {address}, password {password}, authentication: normal password"),
                        address=person, password=password) for person, password in server.accounts.items()]
        lines += [
            words(N_("    incoming: IMAP  {host}  port {imaps}  SSL/TLS      outgoing: SMTP  {host}  port {smtps}  SSL/TLS"),
                  host=server.address, imaps=server.ports["imaps"], smtps=server.ports["submissions"]),
        ]
    return [*lines, words(N_("    The certificates are self-signed: confirm the exception that is offered."))]
