//! Quorate on compio: io_uring, with polling where the kernel refuses it
