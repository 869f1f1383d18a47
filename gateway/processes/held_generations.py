"""The generations that one front may send calls of. Each stays open until the front has done with it, or is gone."""

from gateway.embedding.model import Model
from gateway.errors import Overloaded
from gateway.reload.generation import Generation


class HeldGenerations:
    """Used on the event loop only."""

    def __init__(self) -> None:
        self.by_number: dict[int, Generation] = {}

    def hold(self, generation: Generation) -> None:
        """Keeps a generation open. The front is told of it, so it may send calls of it until `release`."""
        if generation.number not in self.by_number:
            generation.hold()
            self.by_number[generation.number] = generation

    def release(self, number: int) -> None:
        if generation := self.by_number.pop(number, None):
            generation.release()

    def model(self, number: int, place: int) -> Model:
        """The model at a place of a generation's rows. Raises Overloaded if the front may not ask for it: a retry then may."""
        generation = self.by_number.get(number)
        if generation is None or place >= len(generation.catalog.models):
            raise Overloaded("Its configuration has just been replaced.")
        return generation.catalog.models[place]

    def close(self) -> None:
        for number in list(self.by_number):
            self.release(number)
