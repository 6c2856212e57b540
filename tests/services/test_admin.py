"""What the administrator is shown."""

from fumibako.faces.cli.account import _detail
from fumibako.model.account import PasswordRecord
from fumibako.model.mailbox import INBOX
from fumibako.services.admin import Admin
from tests.support.mailhouse import NO_PASSWORD, MailHouse


async def no_password(_: str) -> PasswordRecord:
    return NO_PASSWORD


async def test_an_account_shows_its_mailboxes_before_it_is_used(house: MailHouse) -> None:
    """They are made at the first use, and the same then."""
    admin = Admin(house.store, no_password)
    before = await admin.account("alice@example.jp")
    assert not before.opened and before.mailboxes[0].name == INBOX
    await house.receive("alice@example.jp")
    after = await admin.account("alice@example.jp")
    assert after.opened and (after.mailboxes[0].total, after.quota.messages) == (1, 1)
    assert [(one.name, one.special_use) for one in before.mailboxes] == [(one.name, one.special_use) for one in after.mailboxes]
    shown = [_detail(one) for one in (before, after)]
    assert [one["opened"] for one in shown] == [False, True] and shown[0].keys() == shown[1].keys()
    assert shown[0]["mailboxes"][1:] == shown[1]["mailboxes"][1:]       # the rest is as empty as before
