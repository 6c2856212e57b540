"""Targets and traces that only remember: what the queue handed over, what was told."""

from fumibako.model.queue import Outcome, OutcomeKind, QueuedRecipient, QueueItem

RELAYED = Outcome(OutcomeKind.RELAYED, "2.0.0", "", "250 2.0.0 Ok", "mx.example.net [192.0.2.1]")


class RecordingTarget:
    """Answers each recipient with `outcomes[forward_path]` (the last of a list stays), else RELAYED."""

    def __init__(self, outcomes: dict[str, list[Outcome]] | None = None) -> None:
        self.outcomes = outcomes or {}
        self.delivered: list[tuple[str, tuple[str, ...]]] = []      # (reverse_path, forward_paths) of each attempt
        self.closed_idle = 0
        self.failure: Exception | None = None

    async def deliver(self, item: QueueItem, recipients: tuple[QueuedRecipient, ...]) -> dict[int, Outcome]:
        self.delivered.append((item.envelope.reverse_path, tuple(one.forward_path for one in recipients)))
        if self.failure is not None:
            raise self.failure
        return {one.id: self._next(one.forward_path) for one in recipients}

    def _next(self, forward_path: str) -> Outcome:
        waiting = self.outcomes.get(forward_path, [RELAYED])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    async def close_idle(self) -> None:
        self.closed_idle += 1


class RecordingTrace:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[tuple[bytes, str, dict[str, object]]] = []

    def event(self, trace_id: bytes, kind: str, **fields: object) -> None:
        self.events.append((trace_id, kind, fields))

    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.events]
