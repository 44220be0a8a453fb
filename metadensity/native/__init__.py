"""Optional C++ kernels, built by the machine's compiler when first needed; in torch all is the same, but slower."""
