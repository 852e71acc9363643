"""A video that is being read: its frames in chunks as they come, whichever thread reads them."""

from dataclasses import dataclass

from sfvqa.inference.reading_ahead import CHUNK_SIZE, NewChunk, Reading, in_chunks, new_chunk
from sfvqa.inference.stopwatch import HOST, Stopwatch
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import VideoReader
from sfvqa.video.reading import read_frame_by_frame
from sfvqa.video.sampling import SamplingOptions


@dataclass(frozen=True, eq=False)
class VideoBeingRead:
    """The fitted frames that `sampling` chooses of an opened video; `watch` has the time that reading them takes.

    Taken once, by one thread. The reader may be closed by whoever reads, once the chunks are at their end.
    """

    reader: VideoReader
    sampling: SamplingOptions
    fit: Fit
    chunks: Reading
    watch: Stopwatch

    def check(self, sampling: SamplingOptions, fit: Fit) -> None:
        """ValueError when these are not the frames that are wanted."""
        if (self.sampling, self.fit) != (sampling, fit):
            raise ValueError(f"wanted are frames by {sampling} and {fit}, read were those by {self.sampling}")


def start_reading(
    reader: VideoReader, sampling: SamplingOptions, fit: Fit, *, make_chunk: NewChunk = new_chunk
) -> VideoBeingRead:
    """Have an opened video read by whoever takes the chunks; `make_chunk` gives the memory for each."""
    watch = Stopwatch(HOST)
    steps = read_frame_by_frame(reader, sampling, fit=fit)
    return VideoBeingRead(reader, sampling, fit, in_chunks(steps, CHUNK_SIZE, watch, make_chunk), watch)
