//! The program; everything is in the library.

use std::process::ExitCode;

/// glibc keeps what a mass hang-up frees; mimalloc gives it back, and costs less CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    voxgate::cli::main()
}
