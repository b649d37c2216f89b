"""TensorBoard: one folder of events an experiment (the extra tensorboard)."""

from dataclasses import dataclass
from pathlib import Path

from sah.tracking.record import Record


@dataclass(frozen=True, kw_only=True)
class TensorBoardTracker:
    """Writes hyperparameters and final numbers, so that the HParams view compares runs."""

    folder: str
    """Where `tensorboard --logdir` looks."""

    def log(self, record: Record) -> None:
        """Write one run; an older one of the same experiment stays beside it."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(Path(self.folder, record.name))) as writer:
            writer.add_hparams(dict(record.settings), dict(record.numbers), run_name=".")
            for name, text in record.tags.items():
                writer.add_text(name, text)
