//! The binary: runs the command of the command line.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Tokens and tasks are many small strings. With glibc's allocator they take a tenth more time and
/// memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    tenant_tasks::commands::run().await
}
