"""Read a parent once: its header, its weights digest, and a scan for NaN and infinity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core.adapters import AdapterHeader, adapter_digest, is_adapter, read_adapter
from core.checkpoint import StoredTensor, read_header, weights_digest
from core.errors import NonFiniteCheckpointError
from core.jobs import LOCAL_REF
from core.model import Header
from core.records import StepRecord
from core.settings import Settings
from store import models, steps
from store.session import Database
from workers.places import model_folder, pinned

#: Per safetensors dtype: unsigned type of equal width and the exponent mask; all exponent bits set is NaN or infinity.
_EXPONENTS: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
_PIECE_BYTES = 1 << 24


def run(database: Database, settings: Settings, step: StepRecord) -> None:
    """Inspect the model named in the payload.

    Raises:
        CheckpointError: it cannot be used; the code says why.
    """
    with database.reading() as session:
        record = models.get(session, str(step.payload["model_id"]))
    folder = model_folder(record.ref, settings)
    header, digest = _read(folder)
    with database.transaction() as session:
        steps.guard(session, step.id, step.fence)
        renew = LOCAL_REF.match(record.ref) is not None
        models.mark_ready(session, record.id, header, digest, ref=pinned(record.ref, folder), renew=renew)
        steps.finish(session, step.id, step.fence, {"weights_digest": digest})
        if step.job_id is not None:
            steps.ensure_advance(session, step.job_id)


def _read(folder: Path) -> tuple[Header | AdapterHeader, str]:
    """Header and weights digest of a model or an adapter."""
    if is_adapter(folder):
        adapter = read_adapter(folder)
        return adapter, adapter_digest(folder, adapter, visit=refuse_non_finite)
    header = read_header(folder)
    return header, weights_digest(folder, visit=refuse_non_finite)


def refuse_non_finite(stored: StoredTensor, data: memoryview) -> None:
    """Check one tensor's bytes.

    Raises:
        NonFiniteCheckpointError: names the tensor and its first bad element.
    """
    unsigned, mask = _EXPONENTS[stored.info.dtype]
    width = int(unsigned[-1])
    for start in range(0, len(data), _PIECE_BYTES):
        numbers: np.ndarray[Any, Any] = np.frombuffer(data[start : start + _PIECE_BYTES], dtype=unsigned)
        bad = (numbers & mask) == mask
        if bad.any():
            element = start // width + int(bad.argmax())
            raise NonFiniteCheckpointError(
                f"weights must be finite, but element {element} of tensor {stored.info.name!r} is NaN or infinite: "
                "use an undamaged checkpoint",
                where=stored.info.name,
            )
