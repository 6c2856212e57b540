"""A value that is made out of the directory, and when it is made anew."""

from fumibako.services import StoreUnavailable
from fumibako.services.following import Following


class Source:
    def __init__(self):
        self.version, self.made, self.is_away = 1, 0, False

    def directory_version(self):
        if self.is_away:
            raise StoreUnavailable("away")
        return self.version

    async def make(self):
        self.made += 1
        return f"made at {self.version}"


async def test_made_when_asked_for_and_only_after_a_change():
    source = Source()
    following = Following("the values", source.directory_version, source.make, "none")
    assert following.value == "none"
    assert await following.current() == "made at 1" == following.current() == await following.refresh()
    source.version = 2
    assert following.value == "made at 1"
    assert await following.current() == "made at 2" == following.value
    assert source.made == 2


async def test_a_change_while_it_is_made_counts_as_not_seen():
    source = Source()

    async def make():
        found = await Source.make(source)
        if source.version == 1:
            source.version = 2
        return found
    following = Following("the values", source.directory_version, make, "none")
    assert await following.current() == "made at 1"
    assert await following.current() == "made at 2" == following.current()


async def test_each_outage_is_told_once(caplog):
    source = Source()
    following = Following("the values", source.directory_version, source.make, "none")
    await following.refresh()
    for _ in range(2):
        source.is_away = True
        assert [following.current() for _ in range(5)] == ["made at 1"] * 5
        assert await following.refresh() == "made at 1"
        source.is_away = False
        assert following.current() == "made at 1"
    assert [record.message for record in caplog.records] == ["the values stay as they are: away"] * 2
