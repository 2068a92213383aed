"""The `fork` backend: sessions as frozen processes under an OS jail. Linux, x86-64 and aarch64."""
