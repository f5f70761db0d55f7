from __future__ import annotations

import hashlib
import threading
import time

import pytest

from core.model import TensorInfo
from merging.shards import ShardWriter
from merging.stream import ShardStream

INFOS = [TensorInfo(name=f"t{i}", dtype="F32", shape=(4,)) for i in range(6)]
DATA = [memoryview(bytes([i]) * 16) for i in range(6)]


def stream_all(folder, before=lambda number: None, started=None):
    """Put everything into one shard."""
    with ShardStream(folder, [INFOS], 1 << 20) as stream:
        if started is not None:
            started.append(stream)
        for number, data in enumerate(DATA):
            before(number)
            stream.put(data)


@pytest.fixture
def slow_writer(monkeypatch):
    """Writes only when it is let to."""
    gate, real = threading.Semaphore(0), ShardWriter.write

    def write(self, data):
        if data.nbytes == 16:
            gate.acquire(timeout=30)
        real(self, data)

    monkeypatch.setattr(ShardWriter, "write", write)
    return gate


def test_what_is_put_lands_in_its_shard_in_order(tmp_path):
    with ShardStream(tmp_path, [INFOS[:4], INFOS[4:]], 1 << 20) as stream:
        for data in DATA:
            stream.put(data)
    assert [file.name for file in stream.files] == [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    first, second = ((tmp_path / file.name).read_bytes() for file in stream.files)
    assert first.endswith(b"".join(DATA[:4])) and second.endswith(b"".join(DATA[4:]))
    assert [file.sha256 for file in stream.files] == [hashlib.sha256(data).hexdigest() for data in (first, second)]


def test_putting_waits_while_too_much_waits_to_be_written(tmp_path, slow_writer):
    done: list[int] = []

    def hand_over(stream):
        for number, data in enumerate(DATA):
            stream.put(data)
            done.append(number)

    with ShardStream(tmp_path, [INFOS], waiting_bytes=32) as stream:
        thread = threading.Thread(target=hand_over, args=(stream,))
        thread.start()
        time.sleep(0.2)
        assert done == [0, 1]
        slow_writer.release()
        time.sleep(0.2)
        assert done == [0, 1, 2]
        slow_writer.release(5)
        thread.join(timeout=30)
    assert done == [0, 1, 2, 3, 4, 5]


def test_a_tensor_over_the_limit_is_written_before_putting_returns(tmp_path):
    with ShardStream(tmp_path, [INFOS[:1]], waiting_bytes=4) as stream:
        stream.put(DATA[0])
        assert stream._waiting == 0


def test_what_stops_the_writing_reaches_whoever_puts(tmp_path, monkeypatch):
    def broken(self, data):
        raise OSError(28, "no space")

    monkeypatch.setattr(ShardWriter, "write", broken)
    with pytest.raises(OSError, match="no space"):
        stream_all(tmp_path)


def test_an_error_at_the_very_end_is_not_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(5, "the disk")))
    with pytest.raises(OSError, match="the disk"), ShardStream(tmp_path, [INFOS[:1]], 1 << 20) as stream:
        stream.put(DATA[0])


def test_after_an_exception_the_writer_ends_without_the_rest(tmp_path):
    def stop(number):
        if number == 1:
            raise KeyError("stop")

    streams: list[ShardStream] = []
    with pytest.raises(KeyError):
        stream_all(tmp_path, before=stop, started=streams)
    assert not streams[0]._thread.is_alive() and streams[0].files == []
