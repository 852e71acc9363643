"""The product's own code on CUDA devices that are not there: fake tensors, which have shapes and devices, no values."""
