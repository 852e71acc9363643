"""For users: convert a plain decoder into a slow-fast model, and fine-tune one on videos of their own."""

import logging

# It tells what it could do faster, when it is imported: by PEFT, which transformers.training_args imports. Every module
# of this room does that at its top, so that there is no earlier place, and no later one in time.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
