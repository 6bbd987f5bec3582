//! Quorate on monoio: io_uring, with epoll where the kernel refuses it
