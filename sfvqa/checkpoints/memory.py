"""Estimate the memory of an answer, part by part, and what fits: arithmetic over sizes. No torch."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, requires

from sfvqa.registry import Architecture, FastTokens, QuantizationName
from sfvqa.registry.architecture import prompt_size
from sfvqa.video.clip import CHUNK_SIZE

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NUM_TEXT_TOKENS = 64  # of a short question with the chat template around it
MAX_NEW_TOKENS = 256

CHUNKS_AHEAD = 2
"""Chunks that wait to be encoded, beside the one being read and the one being encoded."""
CHUNKS_AHEAD_OF_MODEL = 8
"""Chunks that may be read while a model is loaded, and wait for it."""
_MOST_FRAMES = (CHUNKS_AHEAD_OF_MODEL + 2) * CHUNK_SIZE  # with the chunk being read and the one being encoded

CPU_PROCESS_BYTES = 400_000_000
"""Python, torch, transformers and the readers, resident: measured with `ask --model tiny` (Linux, torch 2.13, CPU)."""
CPU_GAPS_ENCODING, CPU_GAPS_PROMPT = 0.25, 0.6
"""Shares of what comes and goes that malloc keeps beside it, in gaps too small for the next block (see keep_blocks):
measured with `bench-0.5b` for chunk after chunk in the vision tower, with the other two for layer after layer."""
CUDA_BUILD_BYTES = 390_000_000
"""What torch's CUDA build adds to that where it computes on the CPU: measured alike (torch 2.14)."""
BITSANDBYTES_BYTES = 30_000_000
"""What importing bitsandbytes adds to that."""
CUDA_WORKSPACE_BYTES = 40_000_000
"""Of cuBLAS, which takes up to 32 MiB through torch's allocator."""
CUDA_CONTEXT_BYTES = 500_000_000
"""What CUDA itself holds beside torch's allocator, kernels included; assumed, it varies by GPU and driver."""
_ROOM_MULTIPLE = 512
"""Positions: few sizes to record, and a multiple of 8, as kernels that take a bias want it."""
SLACK = 1.05
"""What is taken must stay this far below what is free: for the allocator, and for who else uses the machine."""


@dataclass(frozen=True)
class RunSize:
    """What determines, beside the network's sizes, how much memory a question takes.

    `device` is the kind: cpu, cuda or mps. `chunk_size` frames are in the vision tower at a time. `batch_size`
    questions about `num_videos` are answered at a time; what prompts about one video begin with is prefilled once.
    `static_decode` copies the caches into buffers of fixed size, which are kept for the next answer, as are graphs.
    """

    num_frames: int
    dtype: str
    device: str
    quantization: QuantizationName = QuantizationName.NONE
    num_text_tokens: int = NUM_TEXT_TOKENS
    max_new_tokens: int = MAX_NEW_TOKENS
    chunk_size: int = CHUNK_SIZE
    attention: str = "sdpa"
    batch_size: int = 1
    num_videos: int = 1
    static_decode: bool = False


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by part, for one question about one video. `peak_bytes` compares with an answer's `peak_memory_bytes`.

    Weights, visual tokens and `process_bytes` (on the CPU the program itself, on CUDA the libraries' workspaces) are
    there throughout; activations come and go, so that the peak is the largest phase and not the sum of everything.
    """

    num_slow_tokens: int
    num_fast_tokens: int
    process_bytes: int
    weights_bytes: int
    loading_bytes: int
    frames_bytes: int
    visual_tokens_bytes: int
    encode_activations_bytes: int
    kv_cache_bytes: int
    slow_keys_values_bytes: int
    static_buffers_bytes: int
    prefill_activations_bytes: int
    decode_activations_bytes: int
    context_bytes: int

    @property
    def phases(self) -> dict[str, int]:
        """Peak memory of each phase."""
        held = self.process_bytes + self.weights_bytes
        asked = held + self.visual_tokens_bytes + self.static_buffers_bytes
        caches = self.kv_cache_bytes + self.slow_keys_values_bytes
        return {
            "load": held + self.frames_bytes + self.loading_bytes,
            "encode": asked + self.frames_bytes + self.encode_activations_bytes,
            "prefill": asked + caches + self.prefill_activations_bytes,
            "decode": asked + caches + self.decode_activations_bytes,
        }

    @property
    def parts(self) -> dict[str, int]:
        """Every part by its name, without `_bytes`."""
        return {name.removesuffix("_bytes"): size for name, size in vars(self).items() if name.endswith("_bytes")}

    @property
    def peak_bytes(self) -> int:
        """Peak memory over all phases."""
        return max(self.phases.values())

    @property
    def spread_bytes(self) -> int:
        """What lies with the layers, and so on several GPUs where these do: weights, keys and values."""
        return self.weights_bytes + self.kv_cache_bytes + self.slow_keys_values_bytes + self.static_buffers_bytes

    @property
    def unspread_bytes(self) -> int:
        """The rest of the peak, of which every GPU needs as much wherever the layers lie."""
        return self.peak_bytes - self.spread_bytes

    @property
    def needed_bytes(self) -> int:
        """Free memory needed, beside CUDA's own context."""
        return int(self.peak_bytes * SLACK)

    def fits(self, free_bytes: int | None) -> bool:
        """Whether it fits; assumed if the free memory is unknown."""
        return free_bytes is None or self.needed_bytes <= free_bytes


def estimate_memory(sizes: Architecture, fast: FastTokens, run: RunSize) -> MemoryEstimate:
    """Estimate the memory of one question about `run.num_frames` frames, or one batch of questions.

    >>> from sfvqa.registry import find_model
    >>> spec = find_model("slowfast-7b-64f")
    >>> run = RunSize(64, "bfloat16", "cuda", QuantizationName.FOUR_BIT)
    >>> round(estimate_memory(spec.architecture, spec.fast_tokens, run).peak_bytes / 1e9, 1)
    8.9
    """
    item = ITEM_BYTES[run.dtype]
    prompt = prompt_size(sizes, fast, run.num_frames, run.num_text_tokens)
    num_slow, length, num_fast = prompt.num_slow, prompt.length, prompt.length - run.num_text_tokens
    token = sizes.hidden_size * item
    key_value = 2 * sizes.key_value_size * item
    on_cpu = run.device == "cpu"
    cached = run.batch_size * sizes.num_layers * key_value
    slow_cached = run.batch_size * len(sizes.hybrid_layers) * key_value * num_slow
    is_packed = on_cpu and run.dtype == "bfloat16"
    tied_head = sizes.vocab_size * token if is_packed and sizes.tie_word_embeddings else 0  # beside the embeddings
    kv_cache = cached * (length + run.max_new_tokens)
    encoding = max(_vision_bytes(sizes, run), 2 * num_slow * token)  # joining the chunks; averaging
    prefilling = _prefill_bytes(
        sizes, run, run.num_videos * num_slow, max(run.num_videos * length, run.batch_size * run.num_text_tokens)
    )
    if on_cpu:
        encoding += int(CPU_GAPS_ENCODING * encoding) if run.num_frames > run.chunk_size else 0
        prefilling += int(CPU_GAPS_PROMPT * (kv_cache + prefilling))
    return MemoryEstimate(
        num_slow_tokens=num_slow if sizes.hybrid_layers else 0,
        num_fast_tokens=num_fast,
        process_bytes=_process_bytes(run),
        weights_bytes=weights_bytes(sizes, run.quantization, item) + tied_head,
        # The tensor on its way while all others are there: the last is lm_head, or else one of the last layer.
        loading_bytes=(sizes.intermediate_size if sizes.tie_word_embeddings else sizes.vocab_size) * token,
        frames_bytes=min(run.num_frames, _MOST_FRAMES) * 3 * sizes.image_size**2 if on_cpu else 0,
        visual_tokens_bytes=run.num_videos * (num_slow + num_fast) * token,
        encode_activations_bytes=encoding,
        kv_cache_bytes=kv_cache,
        slow_keys_values_bytes=slow_cached,
        static_buffers_bytes=_static_bytes(sizes, run, static_room(length + run.max_new_tokens), cached, slow_cached),
        prefill_activations_bytes=prefilling,
        decode_activations_bytes=_dequantized_bytes(sizes, run, 1) + run.batch_size * sizes.vocab_size * (item + 4),
        context_bytes=CUDA_CONTEXT_BYTES if run.device == "cuda" else 0,
    )


def static_room(num_positions: int) -> int:
    """Positions that the buffers of static decoding have room for, where an answer needs so many.

    >>> static_room(1), static_room(512), static_room(513)
    (512, 512, 1024)
    """
    return -(-num_positions // _ROOM_MULTIPLE) * _ROOM_MULTIPLE


def weights_bytes(sizes: Architecture, quantization: QuantizationName, item: int) -> int:
    """Size of all tensors, with `item` bytes per number that is not quantized.

    8bit: a byte a weight and a float32 scale a row. 4bit: half a byte a weight, a byte of scale every 64, and for every
    256 of those a float32; a code book, an offset and those of the scales a layer.
    """
    linear = sizes.num_decoder_linear_weights
    rest = (sizes.num_parameters - linear) * item
    if quantization is QuantizationName.EIGHT_BIT:
        rows = 2 * sizes.hidden_size + sizes.query_size + 2 * sizes.key_value_size + 2 * sizes.intermediate_size
        return rest + linear + 4 * sizes.num_layers * rows
    if quantization is QuantizationName.FOUR_BIT:
        code_books = 7 * sizes.num_layers * 4 * (16 + 256 + 1)
        return rest + linear // 2 + linear // 64 + linear // (64 * 256) * 4 + code_books
    return rest + linear * item


def _process_bytes(run: RunSize) -> int:
    if run.device == "cpu":
        libraries = BITSANDBYTES_BYTES if run.quantization is not QuantizationName.NONE else 0
        return CPU_PROCESS_BYTES + libraries + (CUDA_BUILD_BYTES if _is_cuda_build() else 0)
    return CUDA_WORKSPACE_BYTES if run.device == "cuda" else 0


@lru_cache(maxsize=1)
def _is_cuda_build() -> bool:
    """Whether torch is a build with NVIDIA's libraries, without importing it."""
    with contextlib.suppress(PackageNotFoundError):
        libraries = [name for name in requires("torch") or () if name.startswith(("nvidia", "cuda"))]
        return bool(libraries) and sys.platform == "linux"
    return False


def _vision_bytes(sizes: Architecture, run: RunSize) -> int:
    """The peak inside a block, at its GELU. In a ConvNeXt: the stage's input, the block's, what convolution and norm
    made of it, and the four times wider layer before and after the GELU: 4 + 2 · 4 feature maps of the largest stage.

    Beside them one chunk's pixels, in the model's dtype.
    """
    frames, item = min(run.chunk_size, run.num_frames), ITEM_BYTES[run.dtype]
    pixels = 3 * sizes.image_size**2 * item
    if sizes.vision_layers:  # residual, norm, and the wide layer before and after its GELU
        cells = (sizes.image_size // sizes.vision_stride) ** 2
        return frames * (cells * 2 * (sizes.feature_width + (sizes.vision_intermediate_size or 0)) * item + pixels)
    sides = [sizes.image_size // (4 * 2**stage) for stage in range(len(sizes.vision_dims))]
    largest: int = max(side**2 * dim for side, dim in zip(sides, sizes.vision_dims, strict=True))
    return frames * (12 * largest * item + pixels)


def _prefill_bytes(sizes: Architecture, run: RunSize, num_slow: int, length: int) -> int:
    """The peak of the pass over the prompt: a decoder layer's MLP, or what a hybrid layer makes of the slow tokens.

    Throughout: the slow tokens as a batch, the prompt's embeddings, the layer's input. MLP: residual and norm, then
    gate, up and their product. Slow tokens: normalised, their keys and values in parts, beside what these become.
    """
    item = ITEM_BYTES[run.dtype]
    states, wide = length * sizes.hidden_size * item, length * sizes.intermediate_size * item
    mlp = 2 * states + 3 * wide + _dequantized_bytes(sizes, run, length)
    slow = num_slow * (sizes.hidden_size + 2 * sizes.key_value_size) * item
    attention = 0
    if run.attention == "eager":  # scores in the model's dtype, their softmax in float32 and back
        attention = sizes.num_attention_heads * length**2 // run.num_videos * (2 * item + 4)
    return num_slow * sizes.hidden_size * item + 2 * states + max(mlp, slow, attention)


def _dequantized_bytes(sizes: Architecture, run: RunSize, length: int) -> int:
    """Memory of multiplying with the largest quantized weight, beside input and output.

    4bit: the weight in the model's dtype, and its scales in float32. 8bit: on the CPU the weight in the model's dtype,
    for more than a few tokens; elsewhere the input in 16 and in 8 bits, the sums in 32 and the output in 16.
    """
    weight = sizes.hidden_size * sizes.intermediate_size
    if run.quantization is QuantizationName.FOUR_BIT:
        return weight * ITEM_BYTES[run.dtype] + weight // 64 * 4
    if run.quantization is QuantizationName.EIGHT_BIT:
        if run.device == "cpu":
            return weight * ITEM_BYTES[run.dtype] if length > 1 else 0
        return length * (3 * sizes.hidden_size + 6 * sizes.intermediate_size)
    return 0


def _static_bytes(sizes: Architecture, run: RunSize, room: int, cached: int, slow_cached: int) -> int:
    """What static decoding keeps for the next answer: room for the caches, tables of positions, and on CUDA the graphs'
    pool.

    Computed from what decode_step.py allocates, not measured. The pool has a workspace of cuBLAS for the stream that
    records, and what a step holds at most: an MLP's wide states beside its input, the logits, and in a batch of 4-bit
    products a weight in the model's dtype; more sizes than one add little but their logits.
    """
    if not run.static_decode or run.quantization is QuantizationName.EIGHT_BIT:
        return 0
    item = ITEM_BYTES[run.dtype]
    kept = cached * room + slow_cached + room * (2 * sizes.head_dim + run.batch_size) * item
    if run.device != "cuda":
        return kept
    step = run.batch_size * (2 * sizes.hidden_size + 3 * sizes.intermediate_size + sizes.vocab_size) * item
    return kept + CUDA_WORKSPACE_BYTES + step + (_dequantized_bytes(sizes, run, 1) if run.batch_size > 1 else 0)


BEST_FIRST = (QuantizationName.NONE, QuantizationName.EIGHT_BIT, QuantizationName.FOUR_BIT)

USE_LESS = "Use fewer frames (--frames), a smaller model, or a device with more free memory."
"""What to do where nothing in particular is known to fit."""


@dataclass(frozen=True)
class Fit:
    """The size of a run, its memory estimate, and whether it fits."""

    run: RunSize
    estimate: MemoryEstimate
    fits: bool


def frame_counts(num_frames: int) -> list[int]:
    """Numbers of frames that `--frames auto` tries: those of training, then seven eighths, down to one eighth.

    >>> frame_counts(64)
    [64, 56, 48, 40, 32, 24, 16, 8]
    """
    return list(dict.fromkeys(max(1, num_frames * eighths // 8) for eighths in range(8, 0, -1)))


def choose_fit(
    sizes: Architecture,
    fast: FastTokens,
    run: RunSize,
    free_bytes: int | None,
    *,
    quantizations: Sequence[QuantizationName],
    frames: Sequence[int],
) -> Fit:
    """The first run that fits, or the last one, which does not: all frames in every quantization, then fewer frames.

    `quantizations` come best first and `frames` most first. Frames are given up after precision, because a model is
    trained with so many of them. Where the free memory is unknown the first run is taken.
    """
    for tried in _smaller_and_smaller(sizes, fast, run, free_bytes, quantizations, frames):
        if tried.fits:
            break
    return tried


def largest_that_fits(sizes: Architecture, fast: FastTokens, run: RunSize, free_bytes: int | None) -> Fit | None:
    """The largest run smaller than `run` that should fit; None if none does.

    Quantizations better than the run's own are left out, and so is the run itself.
    """
    if free_bytes is None:
        return None
    rank = BEST_FIRST.index
    kinds = quantizations_on(run.device)
    worse = [each for each in kinds if rank(each) >= rank(run.quantization)] or [run.quantization]
    fits = _smaller_and_smaller(sizes, fast, run, free_bytes, worse, frame_counts(run.num_frames))
    return next((each for each in fits if each.fits and each.run != run), None)


def _smaller_and_smaller(
    sizes: Architecture,
    fast: FastTokens,
    run: RunSize,
    free_bytes: int | None,
    quantizations: Sequence[QuantizationName],
    frames: Sequence[int],
) -> Iterator[Fit]:
    """All frames in every quantization, then fewer and fewer frames in the last."""
    for quantization, num_frames in [
        *((quantization, frames[0]) for quantization in quantizations),
        *((quantizations[-1], num_frames) for num_frames in frames[1:]),
    ]:
        resized = replace(run, quantization=quantization, num_frames=num_frames)
        estimate = estimate_memory(sizes, fast, resized)
        yield Fit(resized, estimate, estimate.fits(free_bytes))


def remedy_for(sizes: Architecture, fast: FastTokens, run: RunSize, free_bytes: int | None) -> str:
    """The remedy for a run that does not fit: the largest setting that should."""
    smaller = largest_that_fits(sizes, fast, run, free_bytes)
    if smaller is None:
        in_16_bits = estimate_memory(sizes, fast, replace(run, dtype="bfloat16"))
        if run.dtype == "float32" and free_bytes is not None and in_16_bits.fits(free_bytes):
            return f"--dtype bfloat16 should fit: it needs {gigabytes(in_16_bits.needed_bytes)}."
        return USE_LESS
    flags = []
    if smaller.run.quantization is not run.quantization:
        flags.append(f"--quant {smaller.run.quantization}")
    if smaller.run.num_frames != run.num_frames:
        flags.append(f"--frames {smaller.run.num_frames}")
    return f"{' '.join(flags)} should fit: it needs {gigabytes(smaller.estimate.needed_bytes)}."


def quantizations_on(device: str) -> tuple[QuantizationName, ...]:
    """Quantizations to choose from on a kind of device, best first: bitsandbytes supports CUDA and the CPU.

    On CUDA 8bit is left to who asks for it: each of its layers waits twice for the device, 392 times a token in the 7B.
    """
    if device == "cuda":
        return (QuantizationName.NONE, QuantizationName.FOUR_BIT)
    return BEST_FIRST if device == "cpu" else BEST_FIRST[:1]


def gigabytes(size: int) -> str:
    """`8.9 GB`; below a tenth of one in MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
