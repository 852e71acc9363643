"""The sizes of a slow-fast network; by formula, how many parameters and operations each part of it takes. No torch.

Of floating-point operations a multiplication and an addition count as two; norms, RoPE, softmax and gates are left out,
as torch's FlopCounterMode does.
"""

import math
from dataclasses import dataclass
from typing import Literal

from sfvqa.errors import ModelError

# The names of enums of sfvqa.model, written out because importing those would import torch; a test compares.
SLOW_ATTENTION_SCOPES = ("text", "text_after_video", "all")
GATINGS = ("dynamic_warm_up", "warm_up", "dynamic", "none")
FamilyName = Literal["slowfast", "llava_onevision", "smolvlm"]
DYNAMIC_GATINGS = ("dynamic_warm_up", "dynamic")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes in a checkpoint's config.json (paper, section 3).

    Of the family slowfast, `vision_depths` and `vision_dims` are the ConvNeXt stages' blocks and widths; of the others
    the tower is a transformer on patches of `patch_size` pixels, and `scale_factor` is what smolvlm's connector divides
    each side by. `image_size` pixels are seen a side.
    `hybrid_layers` are the indices of decoder layers that also attend to slow tokens. `slow_attention_scope` and
    `gating` name members of the enums of sfvqa.model. `head_dim` is the width of one attention head, 0 for an even
    share of `hidden_size`; biases and norms of queries, keys and values are what decoder families differ in: the
    defaults are Qwen2's. Raises ModelError when the numbers contradict each other.

    >>> tiny = Architecture(
    ...     image_size=64, vision_depths=(2, 2), vision_dims=(32, 96), video_pooling_stride=2, hidden_size=128,
    ...     intermediate_size=384, num_layers=4, num_attention_heads=4, num_key_value_heads=2, vocab_size=768,
    ...     max_position_embeddings=2048, rope_theta=10_000.0, tie_word_embeddings=True, hybrid_layers=(0, 2),
    ... )
    >>> tiny.num_visual_tokens(32), tiny.num_visual_tokens(1), tiny.head_dim
    (512, 64, 32)
    """

    image_size: int
    family: FamilyName = "slowfast"
    vision_depths: tuple[int, ...] = ()
    vision_dims: tuple[int, ...] = ()
    patch_size: int | None = None
    vision_layers: int | None = None
    vision_width: int | None = None
    vision_intermediate_size: int | None = None
    scale_factor: int | None = None
    video_pooling_stride: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int
    rope_theta: float
    tie_word_embeddings: bool
    hybrid_layers: tuple[int, ...]
    slow_attention_scope: str = "text"
    gating: str = "dynamic_warm_up"
    head_dim: int = 0
    has_qkv_biases: bool = True
    has_output_bias: bool = False
    has_query_key_norms: bool = False

    def __post_init__(self) -> None:
        if self.head_dim == 0:
            self._check_divides(self.hidden_size, self.num_attention_heads)
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        for name, value in vars(self).items():
            numbers = [each for each in (value if isinstance(value, tuple) else [value]) if type(each) in (int, float)]
            if name != "hybrid_layers" and min(numbers, default=1) <= 0:
                raise _contradiction(f"{name} {value} is not above 0")
        if self.slow_attention_scope not in SLOW_ATTENTION_SCOPES or self.gating not in GATINGS:
            raise _contradiction(
                f"slow_attention_scope {self.slow_attention_scope!r} or gating {self.gating!r} does not exist; "
                f"there are {', '.join(SLOW_ATTENTION_SCOPES)} and {', '.join(GATINGS)}"
            )
        self._check_vision()
        if self.grid_side(num_frames=2) < 1:
            raise _contradiction(f"video_pooling_stride {self.video_pooling_stride} leaves no token of a frame")
        self._check_divides(self.num_attention_heads, self.num_key_value_heads)
        if any(not 0 <= layer < self.num_layers for layer in self.hybrid_layers):
            raise _contradiction(f"hybrid_layers {self.hybrid_layers} lie outside {self.num_layers} layers")

    def _check_vision(self) -> None:
        if self.family != "slowfast":
            names = ["patch_size", "vision_layers", "vision_width", "vision_intermediate_size"]
            names += ["scale_factor"] * (self.family == "smolvlm")
            if missing := [name for name in names if getattr(self, name) is None]:
                raise _contradiction(f"the family {self.family} needs {', '.join(missing)}")
            return
        if len(self.vision_depths) != len(self.vision_dims) or not self.vision_depths:
            raise _contradiction(f"vision_depths {self.vision_depths} and vision_dims {self.vision_dims} do not pair")
        if self.image_size % self.vision_stride:
            raise _contradiction(f"image_size {self.image_size} is no multiple of {self.vision_stride}")

    def _check_divides(self, whole: int, parts: int) -> None:
        if parts <= 0 or whole % parts:
            raise _contradiction(
                f"{self.num_attention_heads} heads with {self.num_key_value_heads} KV heads do not divide "
                f"a width of {self.hidden_size}"
            )

    @property
    def vision_stride(self) -> int:
        """Pixels a cell of the feature map covers in each direction."""
        return self.patch_size or int(4 * 2 ** (len(self.vision_dims) - 1))

    @property
    def feature_width(self) -> int:
        """Of the vision tower's features."""
        return self.vision_width or self.vision_dims[-1]

    def grid_side(self, num_frames: int) -> int:
        """Visual tokens of a frame in each direction; those of an only frame are not pooled (reference)."""
        side = self.image_size // self.vision_stride
        if self.family == "llava_onevision":
            return math.ceil(side / 2)
        if self.family == "smolvlm":
            return side // (self.scale_factor or 1)
        return side // (self.video_pooling_stride if num_frames > 1 else 1)

    def num_visual_tokens(self, num_frames: int) -> int:
        """Of so many frames together: all of them are slow tokens."""
        return num_frames * self.grid_side(num_frames) ** 2

    @property
    def query_size(self) -> int:
        """Width of the queries of one token in one layer, and of what its heads return together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of the keys, or of the values, of one token in one layer."""
        return self.num_key_value_heads * self.head_dim

    @property
    def num_vision_parameters(self) -> int:
        """Of the vision tower, without any classification head."""
        if self.vision_layers:
            width, inner = self.feature_width, self.vision_intermediate_size or 0
            embeddings = (3 * self.vision_stride**2 + 1 + (self.image_size // self.vision_stride) ** 2) * width
            layer = 4 * (width + 1) * width + 2 * width * inner + inner + width + 4 * width
            return embeddings + self.vision_layers * layer + 2 * width
        dims = self.vision_dims
        total = 3 * 4 * 4 * dims[0] + dims[0] + 2 * dims[0]  # stem: convolution and norm
        for stage, (depth, dim) in enumerate(zip(self.vision_depths, dims, strict=True)):
            if stage > 0:
                total += 2 * dims[stage - 1] + 4 * dims[stage - 1] * dim + dim  # norm and 2×2 convolution
            depthwise, norm, scale = 49 * dim + dim, 2 * dim, dim
            total += depth * (depthwise + norm + scale + 2 * 4 * dim * dim + 5 * dim)
        return total

    @property
    def num_projector_parameters(self) -> int:
        """Of what lies between vision tower and decoder."""
        if self.scale_factor:
            return self.feature_width * self.scale_factor**2 * self.hidden_size
        newline = self.hidden_size * (self.family == "llava_onevision")
        return (self.feature_width + 1) * self.hidden_size + (self.hidden_size + 1) * self.hidden_size + newline

    @property
    def num_decoder_linear_weights(self) -> int:
        """Weights, biases apart, of the decoder layers' own linear layers: all that is ever quantized."""
        attention = 2 * self.hidden_size * (self.query_size + self.key_value_size)
        return self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def num_slow_attention_parameters(self) -> int:
        """Of the hybrid layers' projections and gates."""
        kv_proj = (self.hidden_size + 1) * 2 * self.key_value_size
        gate_proj = self.query_size + 1 if self.gating in DYNAMIC_GATINGS else 0
        return len(self.hybrid_layers) * (kv_proj + gate_proj + 1)

    @property
    def num_decoder_other_parameters(self) -> int:
        """Of embeddings, lm_head (when it is not the embeddings), norms, and the biases of queries, keys, values."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        biases = self.has_qkv_biases * (self.query_size + 2 * self.key_value_size)
        biases += self.has_output_bias * self.hidden_size
        norms = 2 * self.hidden_size + self.has_query_key_norms * 2 * self.head_dim
        return embeddings + self.hidden_size + self.num_layers * (norms + biases)

    @property
    def num_parameters(self) -> int:
        """Of the whole network."""
        return (
            self.num_vision_parameters
            + self.num_projector_parameters
            + self.num_decoder_linear_weights
            + self.num_slow_attention_parameters
            + self.num_decoder_other_parameters
        )


@dataclass(frozen=True)
class FastTokens:
    """How fast tokens are averaged from the visual tokens (paper, section 3.1). ModelError for a number below 1."""

    temporal_stride: int
    min_fast_frames: int
    temporal_sampling_stride: int = 1
    spatial_stride: int = 1

    def __post_init__(self) -> None:
        for name, number in vars(self).items():
            if number < 1:
                raise ModelError(f"`{name}` of the fast tokens is {number}.", "Give a number above 0.")

    def num_averages(self, num_frames: int) -> int:
        """Number of temporal averages of `num_frames` frames; a test compares it with sfvqa.model.

        >>> released = FastTokens(temporal_stride=4, min_fast_frames=16)
        >>> [released.num_averages(num_frames) for num_frames in (8, 32, 64, 96)]
        [8, 16, 16, 24]
        """
        kept = num_frames
        if self.temporal_sampling_stride > 1 and num_frames >= self.min_fast_frames:
            kept = max(num_frames // self.temporal_sampling_stride, self.min_fast_frames)
        windows = kept // self.temporal_stride
        return windows if windows >= self.min_fast_frames else min(kept, self.min_fast_frames)


@dataclass(frozen=True)
class Flops:
    """Operations of one question about a video: all frames, the prefill, and one decoded token.

    `cross_attention` is the part of `prefill` that the slow tokens add: their keys and values in every hybrid layer,
    and the attention of those that look at them. `decode_per_token` has the looking of one token in it.
    """

    vision_tower: float
    projector: float
    prefill: float
    cross_attention: float
    decode_per_token: float


@dataclass(frozen=True)
class PromptSize:
    """Tokens of a prompt (`length`, fast ones among them), slow tokens beside it, and how many tokens look at those."""

    length: int
    num_slow: int = 0
    num_looking: int = 0


def prompt_size(sizes: Architecture, fast: FastTokens, num_frames: int, num_text: int) -> PromptSize:
    """Of a video of `num_frames` frames and `num_text` text tokens, all of which look at the slow tokens.

    >>> from sfvqa.registry import find_model
    >>> spec = find_model("slowfast-7b-64f")
    >>> prompt_size(spec.architecture, spec.fast_tokens, 64, num_text=50)
    PromptSize(length=1346, num_slow=5184, num_looking=50)
    """
    cells = (sizes.grid_side(num_frames) // fast.spatial_stride) ** 2
    newline = sizes.family == "llava_onevision"
    return PromptSize(
        fast.num_averages(num_frames) * cells + newline + num_text,
        num_slow=sizes.num_visual_tokens(num_frames),
        num_looking=num_text,
    )


def num_layout_tokens(sizes: Architecture, fast: FastTokens, num_frames: int) -> int:
    """About how many text tokens introduce a video and its frames in a prompt.

    SmolVLM2 gives each frame's time: with its own tokenizer 58 for a frame, 879 for 64.
    """
    return 45 + 13 * fast.num_averages(num_frames) if sizes.family == "smolvlm" else 0


def count_by_formula(sizes: Architecture, num_frames: int, prompt: PromptSize) -> Flops:
    """Count all parts as FlopCounterMode does; the decoded token is the first after the prompt."""
    return Flops(
        vision_tower=num_frames * vision_flops(sizes),
        projector=num_frames * projector_flops(sizes),
        prefill=prefill_flops(sizes, prompt),
        cross_attention=cross_attention_flops(sizes, prompt),
        decode_per_token=decode_flops(sizes, prompt.length + 1, prompt.num_slow),
    )


def vision_flops(sizes: Architecture) -> float:
    """Of the vision tower on one frame."""
    if sizes.vision_layers:
        cells, width, inner = _cells(sizes), sizes.feature_width, sizes.vision_intermediate_size or 0
        layer = 2.0 * cells * (4 * width**2 + 2 * width * inner) + 4.0 * cells**2 * width
        return 2.0 * cells * 3 * sizes.vision_stride**2 * width + sizes.vision_layers * layer
    total = 0.0
    for stage, (depth, dim) in enumerate(zip(sizes.vision_depths, sizes.vision_dims, strict=True)):
        cells = (sizes.image_size // (4 * 2**stage)) ** 2
        before = 3 * 16 * dim if stage == 0 else 4 * sizes.vision_dims[stage - 1] * dim
        total += 2 * cells * (before + depth * (49 * dim + 8 * dim**2))
    return total


def projector_flops(sizes: Architecture) -> float:
    """Of the projector on one frame, whose cells are pooled, if at all, behind it."""
    if sizes.scale_factor:
        return 2.0 * _cells(sizes) * sizes.feature_width * sizes.hidden_size
    return 2.0 * _cells(sizes) * (sizes.feature_width + sizes.hidden_size) * sizes.hidden_size


def _cells(sizes: Architecture) -> int:
    """Cells of a frame's feature map."""
    return (sizes.image_size // sizes.vision_stride) ** 2


def prefill_flops(sizes: Architecture, prompt: PromptSize, *, skip_masked: bool = False) -> float:
    """Of the pass over a prompt, cross-attention included; lm_head computes the last position's logits only.

    Counted are all scores, those that the causal mask hides too; a kernel that skips them needs half (`skip_masked`).
    """
    linear = 2.0 * prompt.length * sizes.num_decoder_linear_weights
    scores = prompt.length**2 / (2 if skip_masked else 1)
    attention = 4.0 * scores * sizes.query_size * sizes.num_layers
    return linear + attention + cross_attention_flops(sizes, prompt) + _head_flops(sizes)


def cross_attention_flops(sizes: Architecture, prompt: PromptSize) -> float:
    """Of the slow tokens' keys and values, and of the tokens that look at them, in all hybrid layers."""
    slow = slow_keys_values_flops(sizes, prompt.num_slow)
    return slow + prompt.num_looking * _looking_flops(sizes, prompt.num_slow)


def slow_keys_values_flops(sizes: Architecture, num_slow: int) -> float:
    """Of the slow tokens' keys and values in all hybrid layers: what the reference computes again for every token."""
    return 4.0 * num_slow * sizes.hidden_size * sizes.key_value_size * len(sizes.hybrid_layers)


def decode_flops(sizes: Architecture, position: int, num_slow: int) -> float:
    """Of one more token that sees `position` tokens, itself included, and looks at kept slow keys and values."""
    linear = 2.0 * sizes.num_decoder_linear_weights
    attention = 4.0 * position * sizes.query_size * sizes.num_layers
    return linear + attention + _looking_flops(sizes, num_slow) + _head_flops(sizes)


def _looking_flops(sizes: Architecture, num_slow: int) -> float:
    """Of one token that looks at slow keys and values, with its gate, in all hybrid layers."""
    if not num_slow:
        return 0.0
    return (4.0 * num_slow + 2.0) * sizes.query_size * len(sizes.hybrid_layers)


def _head_flops(sizes: Architecture) -> float:
    return 2.0 * sizes.vocab_size * sizes.hidden_size


def _contradiction(what: str) -> ModelError:
    return ModelError(f"An architecture contradicts itself: {what}.", "Correct the numbers.")
