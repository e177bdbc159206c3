//! The `jazari` binary: hands the command line to the library and turns its verdict into an exit code.

use std::process::ExitCode;

/// Training allocates and frees the same large blocks every step; glibc gives them back to the system each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    trainer::allocator::fit_training();
    trainer::cli::main()
}
