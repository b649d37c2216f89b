"""A model that counts how often it is loaded."""

import os
from typing import TYPE_CHECKING

from sah.models.tiny import TinyModel

if TYPE_CHECKING:
    from sah.models.language_model import LanguageModel


class CountedModel(TinyModel):
    """Appends a line to the file $SAH_TEST_LOADS for each load."""

    def load(self) -> "LanguageModel":
        with open(os.environ["SAH_TEST_LOADS"], "a") as file:
            file.write(f"{os.getpid()}\n")
        return super().load()
