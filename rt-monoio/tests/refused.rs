//! Where the kernel refuses io_uring. Alone in its process, as the refusal is for good.

use quorate_rt::conformance::refused;
use quorate_rt_monoio::Monoio;

#[test]
fn refused_io_uring_falls_back_with_one_warning() {
    refused::falls_back_with_one_warning::<Monoio>("monoio");
}
