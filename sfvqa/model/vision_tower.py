"""ConvNeXt: normalised pixels become a feature map; the projector brings it to the decoder's width."""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from sfvqa.model.config import SlowFastVisionConfig


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of `[T, C, h, w]`."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU, on the last dimension."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.fc2(self.act(self.fc1(features)))
        return output


class ConvNextBlock(GradientCheckpointingLayer):
    """7×7 depthwise convolution, then a pointwise MLP, scaled by `gamma` and added to its input."""

    def __init__(self, dim: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, features: Tensor) -> Tensor:
        update = self.conv_dw(features).permute(0, 2, 3, 1)
        update = self.gamma * self.mlp(self.norm(update))
        output: Tensor = features + update.permute(0, 3, 1, 2)
        return output


class ConvNextStage(nn.Module):
    """Blocks of one width; every stage but the first halves the resolution before them."""

    def __init__(self, in_dim: int, dim: int, depth: int, layer_norm_eps: float, *, downsample: bool) -> None:
        super().__init__()
        self.downsample = nn.Sequential()
        if downsample:
            self.downsample.append(LayerNorm2d(in_dim, eps=layer_norm_eps))
            self.downsample.append(nn.Conv2d(in_dim, dim, kernel_size=2, stride=2))
        self.blocks = nn.Sequential(*(ConvNextBlock(dim, layer_norm_eps) for _ in range(depth)))

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.blocks(self.downsample(features))
        return output


class VisionTower(nn.Module):
    """The last stage's feature map of a ConvNeXt (Liu et al. 2022), as timm's `convnext_*` computes it."""

    def __init__(self, config: SlowFastVisionConfig) -> None:
        super().__init__()
        dims = list(config.dims)
        self.stem = nn.Sequential(
            nn.Conv2d(3, dims[0], kernel_size=4, stride=4),
            LayerNorm2d(dims[0], eps=config.layer_norm_eps),
        )
        self.stages = nn.Sequential(
            *(
                ConvNextStage(in_dim, dim, depth, config.layer_norm_eps, downsample=index > 0)
                for index, (in_dim, dim, depth) in enumerate(zip([dims[0], *dims], dims, config.depths, strict=False))
            )
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Pixels `[T, 3, H, W]` → features `[T, H/stride, W/stride, dims[-1]]`."""
        # Channels last is what the permutes around the MLPs want: none of them copies then.
        features = self.stages(self.stem(pixel_values.contiguous(memory_format=torch.channels_last)))
        output: Tensor = features.permute(0, 2, 3, 1)
        return output


class Projector(nn.Module):
    """The reference's `mlp2x_gelu`: Linear, exact (erf) GELU, Linear, on the last dimension."""

    def __init__(self, vision_dim: int, decoder_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_dim, decoder_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(decoder_dim, decoder_dim)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.fc2(self.act(self.fc1(features)))
        return output
