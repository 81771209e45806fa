"""What passes by itself ends no command that is meant to last."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ecr_relay.operate.failures import is_passing, sentence
from ecr_relay.operate.shapes import Deadline

_SAY_S: Final = 60.0


class Patience:
    """Bears what passes by itself, and says so, once a minute at the most."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = Deadline(0)
        self.trouble: str | None = None
        """Why what was borne last came to nothing; None: it did not."""

    @contextmanager
    def bearing(self) -> Iterator[None]:
        """Ends the block quietly where `is_passing`. Raises what is not."""
        try:
            yield
        except Exception as error:
            if not is_passing(error):
                raise
            self.trouble = sentence(error) or str(error)
            if self._said.over:
                self._say(f"{self.trouble}; going on")
                self._said = Deadline(_SAY_S)
        else:
            self.trouble = None
