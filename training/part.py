"""What one source gives to the mixture."""

from dataclasses import dataclass, field

from training.demonstrations import Document


@dataclass(frozen=True, slots=True)
class Part:
    """Documents of one source, on both sides of the split, with the counts for the manifest."""

    source: str
    num_read: int
    num_kept: int  # after cleaning and de-duplication
    train: list[Document]
    held_out: list[Document] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        return {
            "records_read": self.num_read,
            "records_after_cleaning_and_dedupe": self.num_kept,
            "documents_train": len(self.train),
            "documents_held_out": len(self.held_out),
        }
