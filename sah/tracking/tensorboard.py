"""TensorBoard tracker: one folder of events per experiment (extra: tensorboard)."""

from dataclasses import dataclass
from pathlib import Path

from sah.results.store import require_writable
from sah.tracking.record import Record, refuse_empty, require_package


@dataclass(frozen=True, kw_only=True)
class TensorBoardTracker:
    """Writes hyperparameters and final numbers for the HParams view."""

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

    def log(self, record: Record) -> None:
        """Write one result; earlier ones of the same experiment are kept."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(Path(self.folder, record.name))) as writer:
            writer.add_hparams(dict(record.settings), dict(record.numbers), run_name=".")
            # Last: only a result with its tags counts as written.
            for name, text in record.tags.items():
                writer.add_text(name, text)
