"""TensorBoard tracker: one folder of events per experiment (extra: tensorboard)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sah.results.store import require_writable
from sah.tracking.record import LiveRun, Record, refuse_empty, require_package

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True, kw_only=True)
class TensorBoardTracker:
    """Writes live numbers, and hyperparameters and final numbers for the HParams view."""

    folder: str
    """Folder for `tensorboard --logdir`."""

    def __post_init__(self) -> None:
        refuse_empty(self)

    def check(self) -> None:
        """Check that TensorBoard is installed and the folder can be written to; create it.

        Raises:
            ConfigurationError: if not.
        """
        require_package("tensorboard", "tensorboard")
        require_writable(Path(self.folder), "tracker.folder")

    def has(self, record: Record) -> bool:
        """Whether the events of the experiment have the tag of this result."""
        from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

        folder = Path(self.folder, record.name)
        if not folder.exists():
            return False
        events = EventAccumulator(str(folder), size_guidance={TENSORS: 0}).Reload()
        name = "result/text_summary"
        if name not in events.Tags()[TENSORS]:
            return False
        texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors(name)]
        return record.tags["result"] in texts

    def open(self, record: Record) -> LiveRun:
        """Begin a file of events; earlier ones of the experiment are kept."""
        from torch.utils.tensorboard import SummaryWriter

        return _Events(writer=SummaryWriter(str(Path(self.folder, record.name))))

    def log(self, record: Record) -> None:
        """Write one result; earlier ones of the same experiment are kept."""
        self.open(record).finish(record)


@dataclass(frozen=True, kw_only=True)
class _Events:
    writer: "SummaryWriter"

    def advance(self, numbers: Mapping[str, float], done: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, done)
        self.writer.flush()

    def finish(self, record: Record) -> None:
        with self.writer:
            self.writer.add_hparams(dict(record.settings), dict(record.numbers), run_name=".")
            # Last: only a result with its tags counts as written.
            for name, text in record.tags.items():
                self.writer.add_text(name, text)

    def stop(self) -> None:
        self.writer.close()
