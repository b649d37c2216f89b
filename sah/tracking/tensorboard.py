"""TensorBoard tracker: one folder of events per experiment (extra: tensorboard)."""

from dataclasses import dataclass
from pathlib import Path

from sah.tracking.record import Record


@dataclass(frozen=True, kw_only=True)
class TensorBoardTracker:
    """Writes hyperparameters and final numbers for the HParams view."""

    folder: str
    """Folder for `tensorboard --logdir`."""

    def log(self, record: Record) -> None:
        """Write one result; earlier ones of the same experiment are kept."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(Path(self.folder, record.name))) as writer:
            writer.add_hparams(dict(record.settings), dict(record.numbers), run_name=".")
            for name, text in record.tags.items():
                writer.add_text(name, text)
