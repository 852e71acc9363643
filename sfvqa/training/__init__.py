"""For users: convert a plain decoder into a slow-fast model, and fine-tune one on videos of their own."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it, and it tells what it could do faster
