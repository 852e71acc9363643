"""Loading a checkpoint of 2 GB never holds it twice: the peak is what stays, one of its files and the libraries."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints.device import free_memory_bytes
from tests.inference.large_checkpoint import write_large_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc"),
]
NEEDED_BYTES = 8 * 10**9
SLACK_BYTES = 500_000_000  # Python, torch, transformers and bitsandbytes, whose code is resident too

LOAD = """
import json, re, sys
from pathlib import Path
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.checkpoints.find import ModelSettings
from sfvqa.model.quantization import weight_bytes
folder, dtype, quantization = sys.argv[1:]
model = load_checkpoint(ModelSettings(folder, device="cpu", dtype=dtype, quantization=quantization)).model
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"peak": peak, "weights": weight_bytes(model)}))
"""


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    free = min(shutil.disk_usage(root).free, free_memory_bytes(torch.device("cpu")) or 0)
    if free < NEEDED_BYTES:
        pytest.skip(f"needs {NEEDED_BYTES / 1e9:.0f} GB of memory and disk, {free / 1e9:.1f} GB are free")
    return write_large_checkpoint(root / "checkpoint")


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [
        ("bfloat16", "none"),
        ("bfloat16", "4bit"),
        *(
            pytest.param(*case, marks=pytest.mark.soak)
            for case in (("float32", "none"), ("float32", "4bit"), ("float16", "8bit"))
        ),
    ],
)
def test_the_peak_is_what_stays_and_one_file(large_folder: Path, dtype: str, quantization: str) -> None:
    """transformers' loader took 2.5 GB more than the weights in bfloat16, and 2.9 GB in 4 bits."""
    files = [path.stat().st_size for path in large_folder.glob("*.safetensors")]
    assert sum(files) > 2 * 10**9
    command = [sys.executable, "-c", LOAD, str(large_folder), dtype, quantization]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(run.stdout)
    assert measured["peak"] < measured["weights"] + max(files) + SLACK_BYTES
